"""Which span was open at a time: small cases by hand, many against the plain definition."""

from __future__ import annotations

import random

from hftrace.replay.timeline import LatestOpen, Timeline


def test_timeline_of_nested_spans():
    timeline = Timeline([(1, 0, 100), (2, 10, 50), (3, 10, 20), (4, 60, 90)])
    assert [timeline.innermost(time) for time in (-1, 0, 9, 10, 19, 20, 49, 50, 60, 89, 90, 100)] == [
        None, 1, 1, 3, 3, 2, 2, 1, 4, 4, 1, None,
    ]  # fmt: skip
    assert timeline.edge_between(11, 30)
    assert not timeline.edge_between(51, 59)


def test_the_latest_of_intervals_that_cross():
    latest = LatestOpen([(0, 10), (2, 4), (3, 6), (20, 20)])
    assert [latest.at(time) for time in (-1, 0, 2, 3, 6, 7, 10, 11, 20, 21)] == [
        None, 0, 1, 2, 2, 0, 0, None, 3, None,
    ]  # fmt: skip
    assert LatestOpen([]).at(5) is None


def test_the_latest_is_what_the_definition_says():
    numbers = random.Random(3)
    for _ in range(300):
        starts = sorted(numbers.randrange(30) for _ in range(numbers.randrange(12)))
        intervals = [(start, start + numbers.randrange(15)) for start in starts]
        latest = LatestOpen(intervals)
        for time in range(-2, 50):
            holding = [position for position, (start, end) in enumerate(intervals) if start <= time <= end]
            assert latest.at(time) == max(holding, default=None)
