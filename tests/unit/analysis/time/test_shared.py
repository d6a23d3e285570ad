"""Time that several threads spend at once counts once."""

from __future__ import annotations

import re

import pytest

from handmade import MAIN, MS, Builder
from hftrace.analysis.compare.variants import load_phases, returned_ns, storage_bytes
from hftrace.analysis.summary import summary
from hftrace.analysis.time.overlap import overlapped_by
from hftrace.analysis.time.phases import attributed_share, loads_wall_ns, phase_times, recorded_wall_ns
from hftrace.analysis.time.shared import union_ns
from hftrace.render.views import load as view
from hftrace.render.views.options import ViewOptions

OTHER = 9


def two_loads(second_at, second_for, first_for=1_000):
    made = Builder()
    first = made.span(None, "load", "Short", 0, first_for, storage_read_bytes=10)
    made.span(first, "instantiate", "init", 0, first_for)
    second = made.span(
        None, "load", "Long", second_at, second_at + second_for, thread=OTHER, storage_read_bytes=10
    )
    made.span(second, "weights", "weights", second_at, second_at + second_for, thread=OTHER)
    return made


def test_a_union_of_stretches():
    assert union_ns([]) == 0
    assert union_ns([(5, 9), (0, 4), (3, 6)]) == 9
    assert union_ns([(0, 10), (2, 3), (20, 21)]) == 11


@pytest.mark.parametrize(
    ("second_at", "second_for", "wall", "phases"),
    [
        (200, 3_000, 3_200, {"weights": 2_600, "instantiate": 600}),
        (1_000, 3_000, 4_000, {"weights": 3_000, "instantiate": 1_000}),
        (200, 300, 1_000, {"instantiate": 850, "weights": 150}),
    ],
)
def test_loads_on_two_threads_take_the_time_in_which_one_was_open(second_at, second_for, wall, phases):
    trace = two_loads(second_at, second_for).trace()
    assert recorded_wall_ns(trace) == loads_wall_ns(trace) == returned_ns(trace) == wall * MS
    assert phase_times(trace) == {**{name: spent * MS for name, spent in phases.items()}, "unattributed": 0}
    assert load_phases(trace) == phase_times(trace)
    assert attributed_share(trace) == 1
    (block,) = view("summary").brief(trace, ViewOptions(), set())
    texts = [text.strip() for line in block.lines(80) for text, _ in line]
    shares = [int(text.removesuffix(" %")) for text in texts if re.fullmatch(r"\d+ %", text)]
    assert shares
    assert sum(shares) <= 101, "rounded figures of one whole"


def test_which_loads_overlapped_is_said():
    trace = two_loads(200, 3_000).trace()
    assert overlapped_by(trace) == {0: [2], 2: [0]}
    assert summary(trace)["overlapping"] == [{"load": 1, "with": [3]}, {"load": 3, "with": [1]}]
    assert summary(two_loads(1_000, 3_000).trace())["overlapping"] == []


def test_parts_add_up_to_the_nanosecond():
    made = Builder()
    for number in range(7):
        root = made.span(
            None, "load", "Model", number * 0.000013, 1 + number * 0.000017, thread=MAIN + number
        )
        made.span(root, "config", "config", number * 0.000013, 0.5 + number * 0.000011, thread=MAIN + number)
    trace = made.trace()
    assert sum(phase_times(trace).values()) == recorded_wall_ns(trace)
    assert all(spent <= recorded_wall_ns(trace) for spent in phase_times(trace).values())


def test_bytes_from_storage_of_loads_at_one_time_are_not_known():
    """The kernel counts them by process: each of the two has the other one's as well."""
    assert storage_bytes(two_loads(200, 300).trace()) is None
    assert storage_bytes(two_loads(1_000, 300).trace()) == 20


def test_a_load_of_another_process_is_not_shared():
    made = two_loads(200, 3_000)
    trace = made.trace()
    made.spans[2:] = [
        type(span)(**{**{f: getattr(span, f) for f in span.__dataclass_fields__}, "pid": 1, "rank": 1})
        for span in made.spans[2:]
    ]
    other = made.trace()
    assert recorded_wall_ns(other) == 1_000 * MS
    assert recorded_wall_ns(trace) == 3_200 * MS
