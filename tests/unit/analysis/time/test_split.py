"""The split of reading: parts add up, and what is not known is unknown."""

from __future__ import annotations

import pytest

from hftrace.analysis.time.split import Split, Used, _Clock, _clock, _in_gaps
from hftrace.render.limit import split_words

MS = 1_000_000
FILE, OTHER = (1, "a"), (1, "b")


def used(user, system=0, delay=0):
    return Used(user * MS, system * MS, 0, 0, None if delay is None else delay * MS)


def test_parts_add_up():
    split = Split.of(100 * MS, used(30, 22, 7), unknown_ns=10 * MS, threads=2)
    assert split.waiting_ns == 31 * MS
    assert sum(split.parts.values()) == split.wall_ns == 100 * MS
    assert split.share("kernel") == pytest.approx(0.22)
    words = split_words({part: split.share(part) for part in split.parts})
    assert words == "waiting 31 %, cast and Python 30 %, kernel 22 %, unknown 10 %, no processor free 7 %"


def test_more_processor_time_than_read_calls():
    split = Split.of(10 * MS, used(30))
    assert (split.wall_ns, split.waiting_ns) == (30 * MS, 0)


def test_a_pool_that_is_woken_often_waits_for_its_work():
    """It was ready 80 ms without a processor, of which at most 6 ms lay in its 10 ms of read calls."""
    split = Split.of(10 * MS, used(3, 1, 80))
    assert (split.wall_ns, split.used.delay_ns, split.waiting_ns) == (10 * MS, 6 * MS, 0)


def test_what_one_part_does_not_know_the_sum_does_not():
    assert (used(1) + used(2)).delay_ns == 0
    assert (used(1) + used(2, delay=None)).delay_ns is None
    assert (used(5) - used(2)).user_ns == 3 * MS


def facts(times, users, born):
    zeros = [0] * len(times)
    return {
        "time_ns": times,
        "user_ns": users,
        "system_ns": zeros,
        "minor_faults": zeros,
        "major_faults": zeros,
        "delay_ns": [None] * len(times),
        "born_ns": born,
    }


def test_a_thread_of_the_load_began_with_nothing():
    clock = _clock(facts([50, 90], [7, 9], 10), 1000)
    assert clock.times == [1010, 1050, 1090]
    assert [each.user_ns for each in clock.used] == [0, 7, 9]


def test_of_an_older_thread_the_first_reading_is_all_that_is_known():
    assert _clock(facts([50, 90], [7, 9], -(10**9)), 0) is None
    assert _clock(facts([50, 90], [7, 9], None), 0) is None
    earlier = _clock(facts([-50, 90], [7, 9], -(10**9)), 0)
    assert (earlier.used[-1] - earlier.used[0]).user_ns == 2


@pytest.mark.parametrize(
    "damage",
    [
        {"user_ns": [1]},
        {"time_ns": [90, 50]},
        {"time_ns": ["x", 50]},
        {"user_ns": [-1, 2]},
        {"system_ns": None},
        {"time_ns": []},
    ],
)
def test_damaged_readings_are_unknown(damage):
    assert _clock({**facts([50, 90], [7, 9], 10), **damage}, 0) is None


def test_only_time_of_one_file_alone_is_its_own():
    clock = _Clock([0, 100, 200, 300], [used(0), used(1), used(3), used(7)])
    reads = [(0, 90, FILE), (110, 150, FILE), (150, 190, OTHER), (210, 260, OTHER)]
    # In the second gap both were read.
    assert _in_gaps(clock, reads) == {FILE: (used(1), 90), OTHER: (used(4), 50)}


def test_a_read_that_spans_readings():
    clock = _Clock([0, 100, 200, 300], [used(0), used(1), used(3), used(7)])
    assert _in_gaps(clock, [(50, 250, FILE)]) == {FILE: (used(7), 200)}
    assert _in_gaps(clock, [(350, 400, FILE)]) == {}


def test_words_of_a_file_that_nobody_vouches_for():
    assert split_words({"waiting": "x", "other": 0.5, "kernel": 0.004, "user": 0.9}) == "cast and Python 90 %"
