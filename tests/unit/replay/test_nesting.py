"""What lies in which step: cases by hand, and many against the plain definition."""

from __future__ import annotations

import random

from hftrace.replay.nesting import add_own_time, nest
from hftrace.replay.reader import OpenedSpan, Process
from hftrace.schema.lines import Edge


def process(*rows):
    """Makes a process of ``(id, parent, phase, start, end)`` and perhaps a thread."""
    made = Process({"pid": 1})
    for identity, parent, phase, start, end, *thread in rows:
        made.spans[identity] = OpenedSpan(
            identity, parent, phase, phase, None, *(thread or [1]), start, Edge(), {}, end=end, status="ok"
        )
    return made


def parents(made):
    nest(made)
    return {identity: span.parent for identity, span in made.spans.items()}


def test_hftrace_s_own_time_is_that_of_the_span_before_it():
    made = process((1, None, "load", 0, 10), (2, 1, "weights", 2, 8), (3, None, "load", 30, 40))
    own = [(1, 14), (1, 40), (1, -5), (7, 20), (None, 3), (1, None)]
    made.facts["own"] = [{"thread": thread, "until_ns": until} for thread, until in own]
    add_own_time(made)
    assert [span.attributes.get("own_ns") for span in made.spans.values()] == [4, None, 0]


def test_a_step_takes_in_what_it_contains():
    made = process(
        (1, None, "step", 0, 100),
        (2, None, "load", 10, 50),
        (3, 2, "weights", 20, 40),
        (4, None, "surgery", 60, 70),
        (5, None, "load", 110, 120),
        (6, None, "load", 20, 30, 2),
    )
    assert parents(made) == {1: None, 2: 1, 3: 2, 4: 1, 5: None, 6: None}


def test_steps_in_one_another_and_at_the_same_times():
    made = process(
        (1, None, "step", 0, 100),
        (2, None, "step", 0, 50),
        (3, None, "import", 5, 45),
        (4, None, "load", 10, 20),
        (5, None, "step", 50, 100),
    )
    assert parents(made) == {1: None, 2: 1, 3: 2, 4: 3, 5: 1}


def test_a_step_inside_of_a_load():
    made = process(
        (1, None, "load", 0, 100),
        (2, 1, "instantiate", 10, 60),
        (3, 2, "initialize", 20, 30),
        (4, 2, "initialize", 50, 55),
        (5, None, "step", 15, 40),
        (6, 1, "weights", 70, 90),
    )
    assert parents(made) == {1: None, 2: 1, 3: 5, 4: 2, 5: 2, 6: 1}


def test_steps_that_cross():
    made = process(
        (1, None, "step", 0, 20),
        (2, None, "step", 10, 40),
        (3, None, "load", 12, 18),
        (4, None, "load", 25, 30),
    )
    # The load that lies in both is the first one's: the second one's own time begins where that ends.
    assert parents(made) == {1: None, 2: None, 3: 1, 4: 2}


def test_without_steps_nothing_changes():
    made = process((1, None, "load", 0, 10), (2, 1, "import", 0, 10), (3, None, "load", 2, 8))
    assert parents(made) == {1: None, 2: 1, 3: None}


def test_what_nests_has_the_innermost_step_around_it():
    numbers = random.Random(5)
    for _ in range(200):
        rows, open_ends = [], []
        time = 0
        for identity in range(1, numbers.randrange(2, 25)):
            time += numbers.randrange(1, 5)
            open_ends = [end for end in open_ends if end > time]
            most = min(open_ends, default=1000)
            end = numbers.randrange(time + 1, most + 1)
            phase = numbers.choice(["step", "import", "load"])
            rows.append((identity, None, phase, time, end))
            open_ends.append(end)
        # A load is the caller's only where it lies in no other one; here every load is a root.
        found = parents(process(*rows))
        for identity, _, phase, start, end in rows:
            around = [row for row in rows if row[3] < start and row[4] >= end]
            expected = max(around, key=lambda row: row[3], default=None)
            if expected is not None and (phase != "load" or expected[2] != "load"):
                assert found[identity] == expected[0]
