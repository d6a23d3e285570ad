"""Exclusive times: whatever the tree looks like, they add up to the wall."""

import itertools
import random

import pytest

import handmade
from handmade import MAIN, MS, Builder
from hftrace.analysis.time.phases import attributed_share, phase_times, recorded_wall_ns
from hftrace.analysis.time.spans import UNATTRIBUTED, SpanIndex, span_index


def index_of(made):
    return SpanIndex(made.trace().spans)


def random_tree(seed, untidy):
    """A random forest; untidy ones have children that overlap and stick out of their parents."""
    chance = random.Random(seed)
    made = Builder()
    open_spans = []
    for number in range(chance.randint(1, 60)):
        if not open_spans or chance.random() < 0.1:
            begin = number * 1000.0
            open_spans = [(made.span(None, "load", "root", begin, begin + 900), begin, begin + 900)]
            continue
        parent, left, right = chance.choice(open_spans)
        start, end = sorted(chance.uniform(left, right) for _ in range(2))
        if untidy:
            start, end = start - chance.uniform(0, 50), end + chance.uniform(0, 50)
        elif any(
            start < span.end_ns / MS and end > span.start_ns / MS
            for span in made.spans
            if span.parent == parent
        ):
            continue
        thread = MAIN if chance.random() < 0.8 else chance.randint(1, 3)
        phase = chance.choice(("load", "config", "weights", "tie"))
        open_spans.append((made.span(parent, phase, "x", start, end, thread=thread), start, end))
    return made


@pytest.mark.parametrize("untidy", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_exclusive_times_add_up_to_the_wall(seed, untidy):
    trace = random_tree(seed, untidy).trace()
    index = span_index(trace)
    assert sum(phase_times(trace).values()) == recorded_wall_ns(trace)
    for root in index.roots:
        own = list(index.walk_thread([root]))
        assert sum(index.self_ns(row) for row in own) == index.wall_ns(root)
        assert all(index.self_ns(row) >= 0 for row in own)
        stretches = sorted(index.exclusive([root]))
        assert sum(end - start for start, end, _ in stretches) == index.wall_ns(root)
        assert all(left[1] <= right[0] for left, right in itertools.pairwise(stretches))
    assert 0 <= attributed_share(trace) <= 1


@pytest.mark.parametrize("name", handmade.ALL)
def test_phases_of_every_handmade_trace_add_up(name):
    trace = handmade.ALL[name]()
    assert sum(phase_times(trace).values()) == recorded_wall_ns(trace)


def test_only_the_self_time_of_loads_is_unattributed():
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    inner = made.span(root, "load", "B", 10, 90)
    made.span(inner, "weights", "w", 20, 80)
    assert index_of(made).phase_times([0]) == {"weights": 60 * MS, UNATTRIBUTED: 40 * MS}


def test_work_of_another_thread_is_not_taken_from_its_parent():
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    weights = made.span(root, "weights", "w", 0, 100)
    made.span(weights, "shard", "s", 10, 90, thread=99)
    index = index_of(made)
    assert index.self_ns(1) == 100 * MS
    assert index.phase_times([0]) == {"weights": 100 * MS, UNATTRIBUTED: 0}


def test_wall_is_the_main_threads_roots_alone():
    made = Builder()
    made.span(None, "import", "import torch", 0, 50)
    made.span(None, "load", "A", 60, 100)
    made.span(None, "load", "B", 60, 500, rank=1, pid=2, thread=5)
    trace = made.trace()
    assert recorded_wall_ns(trace) == 90 * MS
    assert len(span_index(trace).load_rows) == 2


def test_a_trace_without_spans_has_no_main_thread():
    trace = handmade.empty()
    assert span_index(trace).main_lane is None
    assert recorded_wall_ns(trace) == 0
    assert attributed_share(trace) is None


def test_nearest_span_of_a_phase():
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    weights = made.span(root, "weights", "w", 0, 100)
    shard = made.span(weights, "shard", "s", 0, 50)
    made.span(shard, "convert", "c", 0, 10)
    assert index_of(made).nearest(("weights",)) == [None, 1, 1, 1]
    assert index_of(made).nearest(("shard", "weights")) == [None, 1, 2, 2]


def test_deep_trees_do_not_overflow():
    trace = handmade.deep(5000)
    assert sum(phase_times(trace).values()) == recorded_wall_ns(trace)
