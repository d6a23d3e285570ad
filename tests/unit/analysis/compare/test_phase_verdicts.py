"""Phases that differ for certain, by series of times that were drawn."""

from __future__ import annotations

import random

import pytest

from handmade_compare import heavy_tailed, runs
from hftrace.analysis.compare.comparison import compare, facts
from hftrace.analysis.compare.phase_verdicts import EXACT_WAYS, phase_verdicts
from hftrace.analysis.compare.verdicts import BETTER, NO_DIFFERENCE, TOO_FEW_RUNS, WORSE

MS = 1_000_000
TYPICAL_MS = {
    "import": 900,
    "config": 20,
    "resolve": 2,
    "instantiate": 30,
    "weights": 500,
    "shard": 300,
    "initialize": 8,
    "tie": 1,
    "finalize": 2,
    "generation_config": 3,
    "unattributed": 1,
}


def drawn(draw: random.Random, **delays_ms: float) -> dict[str, int]:
    """One run of a busy machine: a factor of the whole, and one of each phase."""
    whole = heavy_tailed(draw)
    return {
        phase: round((typical * whole * heavy_tailed(draw) + delays_ms.get(phase, 0)) * MS)
        for phase, typical in TYPICAL_MS.items()
    }


def judged(draw: random.Random, count: int = 5, least_ms: float = 1, **delays_ms: float):
    sides = [drawn(draw) for _ in range(count)], [drawn(draw, **delays_ms) for _ in range(count)]
    return phase_verdicts(*sides, least_ms * MS)


def different(found) -> list[str]:
    return [phase for phase, each in found.items() if each.verdict != NO_DIFFERENCE]


def test_a_load_against_itself():
    """At a level of 1 % for all phases together; 4 % are more than three standard deviations above it."""
    draw = random.Random(11)
    wrong = sum(bool(different(judged(draw))) for _ in range(150))
    assert wrong / 150 <= 0.04


@pytest.mark.parametrize("phase", ["tie", "initialize", "generation_config", "resolve"])
def test_five_percent_of_the_load_in_one_phase(phase):
    """A delay that the whole's own spread hides, and the phase's does not."""
    draw = random.Random(3)
    delay = 0.05 * sum(TYPICAL_MS.values())
    found = [different(judged(draw, **{phase: delay})) for _ in range(40)]
    assert sum(each == [phase] for each in found) >= 36


def test_its_size_and_direction():
    draw = random.Random(4)
    found = judged(draw, tie=80)["tie"]
    assert found.verdict == WORSE
    assert found.difference_ns == pytest.approx(80 * MS, rel=0.05)
    assert found.p_value == 2 / 252
    slow = [drawn(draw, tie=80) for _ in range(5)]
    quick = [drawn(draw) for _ in range(5)]
    assert phase_verdicts(slow, quick, MS)["tie"].verdict == BETTER


def test_what_is_smaller_than_anybody_cares_about():
    draw = random.Random(5)
    assert judged(draw, least_ms=100, tie=80)["tie"].verdict == NO_DIFFERENCE


def test_many_runs_are_dealt_at_random():
    draw = random.Random(6)
    found = judged(draw, count=12, tie=80)
    assert different(found) == ["tie"]
    assert found["tie"].p_value >= 1 / EXACT_WAYS
    assert found == judged(random.Random(6), count=12, tie=80)


def test_too_few_runs_and_none():
    draw = random.Random(7)
    assert {each.verdict for each in judged(draw, count=4, tie=80).values()} == {TOO_FEW_RUNS}
    assert phase_verdicts([], [drawn(draw)], MS) == {}
    assert phase_verdicts([drawn(draw)], [], MS) == {}


def test_a_phase_that_one_side_does_not_have_took_no_time():
    sides = [{"import": 5 * MS}] * 5, [{"import": 5 * MS, "adapter": 3 * MS}] * 5
    found = phase_verdicts(*sides, MS)
    assert (found["adapter"].verdict, found["adapter"].difference_ns) == (WORSE, 3 * MS)
    assert found["import"].verdict == NO_DIFFERENCE


def test_in_a_comparison():
    made = compare([("quick", runs()), ("slow", runs(instantiate_ms=9_000))])
    found = facts(made)["variants"]["slow"]["phase_verdicts"]
    assert found["instantiate"]["verdict"] == WORSE
    assert found["instantiate"]["difference_ns"] > 0
    assert {phase for phase, each in found.items() if each["verdict"] != NO_DIFFERENCE} == {"instantiate"}
