"""One series of a process, of samples and edges, and the peaks that come from it."""

import dataclasses

import handmade
import handmade_memory
from handmade import MS, Builder
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.memory.readings import device_readings, host_readings
from hftrace.analysis.memory.usage import process_memory
from hftrace.render.views.timeline import timeline_block
from hftrace.units import byte_count

EDGES = {"rss_anon_start_bytes": 1, "rss_file_start_bytes": 2, "rss_anon_bytes": 5, "rss_file_bytes": 7}


def only(by_process):
    (taken,) = by_process.values()
    return taken


def test_edges_stand_where_there_are_no_samples():
    made = Builder()
    made.span(None, "load", "A", 0, 100, **EDGES, rss_peak_bytes=50)
    trace = made.trace()
    assert [reading[:3] for reading in only(host_readings(trace))] == [(0, 1, 2), (100 * MS, 5, 7)]
    peaks = memory_peaks(trace)
    assert (peaks.rss_bytes, peaks.anonymous_bytes, peaks.file_bytes) == (50, 5, 7)


def test_samples_and_edges_are_one_series():
    made = Builder()
    made.span(None, "load", "A", 0, 100, **EDGES)
    made.sample(50, 40, 30)
    trace = made.trace()
    assert [reading.anonymous_bytes for reading in only(host_readings(trace))] == [1, 40, 5]
    assert memory_peaks(trace).anonymous_bytes == 40


def test_a_watermark_that_died_with_the_process_gives_way_to_a_sample():
    made = Builder()
    made.span(None, "load", "A", 0, 100, rss_peak_bytes=50)
    made.sample(10, 40 * 10**6, 30 * 10**6)
    assert memory_peaks(made.trace()).rss_bytes == 70 * 10**6


def test_a_sample_that_lies_within_the_slack_does_not_beat_the_watermark():
    made = Builder()
    made.span(None, "load", "A", 0, 100, rss_peak_bytes=500 * 10**6)
    made.sample(10, 400 * 10**6, 100 * 10**6 + 4096)
    trace = made.trace()
    assert memory_peaks(trace).rss_bytes == process_memory(trace)[0].peak.bytes == 500 * 10**6


def test_a_sample_without_a_process_counts_for_each():
    made = Builder()
    made.span(None, "load", "A", 0, 100, pid=1)
    made.span(None, "load", "B", 0, 100, pid=2)
    made.sample(10, 40, 30, device=9)
    made.samples[-1] = dataclasses.replace(made.samples[-1], pid=None)
    host, devices = host_readings(made.trace()), device_readings(made.trace())
    assert {pid: taken[0].total_bytes for pid, taken in host.items()} == {1: 70, 2: 70}
    assert {pid: taken["cuda:0"][0].allocated_bytes for pid, taken in devices.items()} == {1: 9, 2: 9}


def test_nothing_was_read():
    assert host_readings(handmade.empty()) == device_readings(handmade.empty()) == {}


def test_the_timeline_has_the_figures_of_the_peaks():
    for trace in (handmade_memory.upcast(), handmade.healthy(), handmade.sharded()):
        peaks = memory_peaks(trace)
        drawn = timeline_block(trace).text(120, False, False)
        shown = {line.split()[0]: " ".join(line.split()[1:3]) for line in drawn.splitlines() if line.strip()}
        assert shown.get("anon") == byte_count(peaks.anonymous_bytes)
        assert shown.get("file") == byte_count(peaks.file_bytes)
