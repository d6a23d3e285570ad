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

from hftrace.analysis.compare.verdicts import BETTER, LEVEL, NO_DIFFERENCE, TOO_FEW_RUNS, WORSE, can_decide

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
    first, enough = len(baseline), can_decide(len(baseline), len(values))
    series = [_Series([float(run.get(phase, 0)) for run in (*baseline, *values)], first) for phase in phases]
    greatest = _greatest_by_chance(series, first) if enough else []
    found = {}
    for phase, each in zip(phases, series, strict=True):
        difference = statistics.median(each.times[first:]) - statistics.median(each.times[:first])
        # A little below its own share, which the way that was seen reaches but for rounding.
        own = each.explained(range(first)) * (1 - 1e-9)
        reached = sum(other >= own for other in greatest)
        p_value = reached / len(greatest) if greatest else 1.0
        if not enough:
            verdict = TOO_FEW_RUNS
        elif p_value > LEVEL or abs(difference) < least_ns:
            verdict = NO_DIFFERENCE
        else:
            verdict = BETTER if difference < 0 else WORSE
        found[phase] = PhaseVerdict(round(difference), p_value, verdict)
    return found


class _Series:
    """The times of one phase in all runs, those of the baseline first."""

    def __init__(self, times: Sequence[float], first: int) -> None:
        self.times = times
        self._sizes = first, len(times) - first
        self._total = sum(times)
        mean = self._total / len(times)
        self._whole = sum((value - mean) ** 2 for value in times)
        self._middle = self._total**2 / len(times)

    @property
    def varies(self) -> bool:
        """Whether there is anything to explain."""
        return self._whole > 0

    def explained(self, chosen: Iterable[int]) -> float:
        """Returns the share of the variance that lies between the chosen runs and the others."""
        if not self.varies:
            return 0.0
        part = sum([self.times[at] for at in chosen])
        first, second = self._sizes
        between = part**2 / first + (self._total - part) ** 2 / second - self._middle
        return min(1.0, max(0.0, between / self._whole))


def _greatest_by_chance(series: Sequence[_Series], first: int) -> list[float]:
    """Returns the greatest share of any phase, for each way to deal the runs to the two sides."""
    varied = [each for each in series if each.varies]
    count = len(series[0].times)
    return [max((each.explained(chosen) for each in varied), default=0.0) for chosen in _ways(count, first)]


def _ways(count: int, first: int) -> Iterable[Sequence[int]]:
    if math.comb(count, first) <= EXACT_WAYS:
        return itertools.combinations(range(count), first)
    draw = random.Random(0)
    # What was seen is one of the ways: without it, a p value could be 0.
    drawn = (draw.sample(range(count), first) for _ in range(EXACT_WAYS - 1))
    return itertools.chain([range(first)], drawn)
