"""Memory over time and above the start of a load."""

import json

import pytest

import handmade
import handmade_memory
from handmade import GB, MB, MS, Builder
from hftrace.analysis.memory.facts import kept_bytes, memory_facts
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.summary import summary
from hftrace.analysis.time.spans import span_index

EVERY = {
    **handmade.ALL,
    **handmade_memory.LOADS,
    "hostile": handmade.hostile,
    "deep": handmade.deep,
    "empty": handmade.empty,
}


def main(trace):
    return process_memory(trace)[0]


def test_the_table_of_a_dense_load():
    process = main(handmade_memory.upcast())
    start, *rest = process.states
    assert start[2:] == (400 * MB, 300 * MB, 100 * MB)
    added = {state.name: process.above_start(state)[2:] for state in rest}
    assert added == {
        "returned": (860 * MB, 850 * MB, 10 * MB),
        "after touch": (862 * MB, 850 * MB, 12 * MB),
        "after forward": (940 * MB, 890 * MB, 50 * MB),
        "after release": (60 * MB, 30 * MB, 30 * MB),
        "peak": (1_300 * MB, 850 * MB, 450 * MB),
    }
    assert process.peak_above_start_bytes == 1_300 * MB


def test_a_watermark_outranks_the_samples():
    peak = main(handmade_memory.upcast(between=True, after=False)).load_peak
    assert (peak.bytes, peak.exact, peak.between_readings) == (1_700 * MB, True, True)
    assert peak.read_bytes < 1_300 * MB
    state = main(handmade_memory.upcast(between=True, after=False)).state("peak")
    assert state[2:] == (1_700 * MB, None, None)


def test_a_peak_that_a_reading_shows_has_parts_and_a_place():
    trace = handmade_memory.upcast()
    peak = process_memory(trace)[0].load_peak
    assert not peak.between_readings
    assert span_index(trace).phases[peak.span] == "weights"
    assert peak.time_ns == 6_130 * MS


def test_a_span_without_edges_of_its_own_is_no_place_of_a_peak():
    made = Builder()
    root = made.span(
        None, "load", "L", 0, 100, rss_peak_bytes=GB, rss_anon_start_bytes=1, rss_file_start_bytes=1
    )
    made.span(root, "initialize", "_init_weights", 10, 12, rss_peak_bytes=GB)
    assert main(made.trace()).load_peak.span == 0


def test_without_watermarks_the_largest_reading_counts():
    made = Builder()
    made.span(None, "load", "L", 0, 100)
    made.sample(50, 70 * MB, 20 * MB)
    peak = main(made.trace()).peak
    assert (peak.bytes, peak.exact, peak.time_ns) == (90 * MB, False, 50 * MS)


def test_the_figure_of_a_span_that_never_ended_is_a_sample():
    assert not main(handmade_memory.dead()).load_peak.exact


def test_shared_memory_is_carried_to_the_edges():
    readings = main(handmade_memory.upcast(after=False, shared=200 * MB)).readings
    assert {reading.shared_bytes for reading in readings} == {200 * MB}


def test_each_rank_has_its_own_memory():
    ranks = process_memory(handmade_memory.two_ranks())
    assert [process.rank for process in ranks] == [0, 1]
    assert [list(process.devices) for process in ranks] == [["cuda:0"], ["cuda:1"]]
    assert [process.device_peaks for process in ranks] == [{"cuda:0": 4 * GB}, {"cuda:1": 4 * GB}]
    assert ranks[1].peak.bytes == 1_100 * MB
    assert ranks[0].readings != ranks[1].readings


def test_reserved_memory_is_never_less_than_what_is_allocated():
    made = Builder()
    made.span(
        None,
        "load",
        "L",
        0,
        100,
        device_allocated_bytes={"cuda:0": 50},
        device_reserved_bytes={"cuda:0": 10},
    )
    assert main(made.trace()).devices["cuda:0"] == [(100 * MS, 50, 50)]


def test_repeated_steps_after_a_load_are_numbered():
    made = Builder()
    edges = {"rss_anon_start_bytes": 1, "rss_file_start_bytes": 1, "rss_anon_bytes": 2, "rss_file_bytes": 2}
    made.span(None, "forward", "before the load", 0, 5, **edges)
    made.span(None, "load", "L", 10, 20, **edges)
    for number in range(3):
        made.span(None, "forward", "f", 30 + number, 30.5 + number, **edges)
    names = [state.name for state in main(made.trace()).states]
    assert names == ["start", "returned", "after forward", "after forward 2", "after forward 3", "peak"]


def test_what_a_load_kept():
    assert kept_bytes(handmade_memory.upcast()) == sum(
        tensor.bytes for tensor in handmade_memory.upcast().tensors
    )
    assert kept_bytes(handmade.healthy()) == 160 * MB
    assert kept_bytes(handmade.empty()) is None


def test_the_summary_s_memory():
    memory = summary(handmade_memory.upcast())["memory"]
    assert memory["start"] == {"total_bytes": 400 * MB, "anonymous_bytes": 300 * MB, "file_bytes": 100 * MB}
    assert memory["returned"]["total_bytes"] == 1_260 * MB
    assert memory["returned_above_start"]["anonymous_bytes"] == 850 * MB
    assert memory["peak_above_start_bytes"] == 1_300 * MB
    assert memory["peak_between_samples"] is False
    assert [entry["phase"] for entry in memory["after"]] == ["touch", "forward", "release"]
    parts = memory["composition"]["parts"]
    assert sum(part["bytes"] for part in parts) == memory["composition"]["peak_bytes"] == 1_700 * MB


@pytest.mark.parametrize("name", EVERY)
def test_memory_facts_are_finite_json(name):
    trace = EVERY[name]()
    json.dumps(memory_facts(trace), allow_nan=False)
    for process in process_memory(trace):
        assert process.readings == sorted(process.readings, key=lambda reading: reading.time_ns)
