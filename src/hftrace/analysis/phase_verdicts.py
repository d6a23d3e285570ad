"""Which phases of a load differ for certain, where the whole may not.

A delay of 50 ms in a phase that takes 1 ms is plain to see, though the load
takes 1 s and its time spreads by 100 ms. So each phase is judged by its own
time; and as there are a dozen of them, all are judged together, or one in a
dozen would look different by chance.

The test is a permutation test with the greatest statistic of all phases
(Westfall and Young, Resampling-Based Multiple Testing, 1993, section 2.3,
"maxT"). It assumes nothing but that runs of one load with itself could be
swapped: deal the runs to the two sides in all ways there are; in each, take
for each phase the share of its variance that the sides explain, and of these
shares the greatest. The p value of a phase is the part of all ways in which
the greatest share is no less than the phase's own. So the chance that *any*
phase of a load compared with itself is called different is at most the level.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hftrace.analysis.verdicts import BETTER, LEVEL, NO_DIFFERENCE, TOO_FEW_RUNS, WORSE, can_decide

EXACT_WAYS = 4_000
"""Up to so many ways to deal the runs, all are looked at (7 and 7: 3,432); above, so many are drawn."""


@dataclass(frozen=True)
class PhaseVerdict:
    """One phase of a variant against the baseline."""

    difference_ns: int
    """Between the medians of the phase's time, rounded to whole ns."""
    p_value: float
    """For all phases together: the chance that any would look so different."""
    verdict: str


def phase_verdicts(
    baseline: Sequence[Mapping[str, int]], values: Sequence[Mapping[str, int]], least_ns: float
) -> dict[str, PhaseVerdict]:
    """Judges every phase.

    Args:
        baseline: Time by phase in ns, of each run of the baseline; a phase that is missing took none.
        values: The same of the variant.
        least_ns: A difference of medians below this is none.

    Returns:
        A verdict for each phase that any run has; empty where a side has no run.
    """
    if not baseline or not values:
        return {}
    phases = list(dict.fromkeys(phase for run in (*baseline, *values) for phase in run))
    series = [[float(run.get(phase, 0)) for run in (*baseline, *values)] for phase in phases]
    first, enough = len(baseline), can_decide(len(baseline), len(values))
    seen = [_explained(times, sum(times[:first]), first) for times in series]
    greatest = _greatest_by_chance(series, first) if enough else []
    found = {}
    for phase, times, share in zip(phases, series, seen, strict=True):
        difference = statistics.median(times[first:]) - statistics.median(times[:first])
        # A little below its own share, which the way that was seen reaches but for rounding.
        reached = sum(other >= share * (1 - 1e-9) for other in greatest)
        p_value = reached / len(greatest) if greatest else 1.0
        if not enough:
            verdict = TOO_FEW_RUNS
        elif p_value > LEVEL or abs(difference) < least_ns:
            verdict = NO_DIFFERENCE
        else:
            verdict = BETTER if difference < 0 else WORSE
        found[phase] = PhaseVerdict(round(difference), p_value, verdict)
    return found


def _explained(times: Sequence[float], first_sum: float, first: int) -> float:
    """Returns the share of the variance of ``times`` that lies between the first so many and the others."""
    total, count = sum(times), len(times)
    mean = total / count
    whole = sum((value - mean) ** 2 for value in times)
    if whole <= 0:
        return 0.0
    second = count - first
    between = first_sum**2 / first + (total - first_sum) ** 2 / second - total**2 / count
    return min(1.0, max(0.0, between / whole))


def _greatest_by_chance(series: Sequence[Sequence[float]], first: int) -> list[float]:
    """Returns the greatest share of any phase, for each way to deal the runs to the two sides."""
    varied = [times for times in series if max(times) > min(times)]
    return [
        max((_explained(times, sum(times[at] for at in chosen), first) for times in varied), default=0.0)
        for chosen in _ways(len(series[0]), first)
    ]


def _ways(count: int, first: int) -> Iterable[Sequence[int]]:
    if math.comb(count, first) <= EXACT_WAYS:
        return itertools.combinations(range(count), first)
    draw = random.Random(0)
    # What was seen is one of the ways: without it, a p value could be 0.
    drawn = (draw.sample(range(count), first) for _ in range(EXACT_WAYS - 1))
    return itertools.chain([range(first)], drawn)
