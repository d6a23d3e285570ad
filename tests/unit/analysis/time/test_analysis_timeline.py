"""Cells of the timeline: shares, phases and memory, cut into equal parts."""

import pytest

import handmade
from handmade import MAIN, Builder
from hftrace.analysis.time.phases import recorded_wall_ns
from hftrace.analysis.time.timeline import coverage, dominant, resample, timeline


def test_coverage():
    assert coverage([(0, 10), (15, 20)], 0, 40, 4) == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert coverage([(-5, 5), (35, 99)], 0, 40, 4) == pytest.approx([0.5, 0.0, 0.0, 0.5])
    assert coverage([(0, 40)], 0, 40, 4) == [1.0] * 4
    assert coverage([], 0, 0, 3) == [0.0] * 3


def test_coverage_adds_up():
    stretches = [(3, 17), (20, 21), (40, 77)]
    assert sum(coverage(stretches, 0, 100, 7)) * 100 / 7 == pytest.approx(14 + 1 + 37)


def test_dominant_phase():
    stretches = [(0, 6, "config"), (6, 20, "weights"), (39, 40, "tie")]
    assert dominant(stretches, 0, 40, 4) == ["config", "weights", None, None]
    assert dominant([(0, 40, "load")], 0, 40, 2) == ["load", "load"]


def test_resampled_memory_keeps_peaks_and_holds_on():
    assert resample([(0, 1), (1, 9), (2, 1), (25, 4)], 0, 40, 4) == [9, 9, 4, 4]
    assert resample([(-5, 3)], 0, 40, 2) == [3, 3]
    assert resample([(20, 3)], 0, 40, 2) == [None, 3]
    assert resample([], 0, 40, 2) == [None, None]


def test_lanes_of_a_load():
    made = timeline(handmade.sharded())
    (main,) = made.spans
    assert main.name == "MainThread"
    assert [lane.name for lane in made.reads] == ["ThreadPoolExecutor-0_0", "ThreadPoolExecutor-0_1"]
    assert sum(lane.busy_ns for lane in made.reads) > 0
    assert made.waits
    total = sum(end - start for start, end, _ in main.stretches)
    assert total == recorded_wall_ns(handmade.sharded())


def test_a_span_on_another_thread_has_its_own_lane():
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    made.span(root, "shard", "s", 10, 50, thread=99)
    lanes = timeline(made.trace()).spans
    assert [lane.lane.thread for lane in lanes] == [MAIN, 99]
