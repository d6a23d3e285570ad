"""Is a difference between two series of runs real, or noise?

The rule, for one metric of a variant against the baseline (lower is better):

1.  ``too_few_runs`` where even the clearest outcome could be chance: see :func:`least_p_value`. Five runs
    each are enough, four are not.
2.  ``no_difference`` where the medians differ by less than 1 %, or by less than the counters resolve.
3.  ``better`` or ``worse`` where the exact rank-sum test (Wilcoxon 1945, Mann and Whitney 1947) finds a
    difference at the level of 1 %, *and* the bootstrap interval of the ratio of medians leaves out 1.
4.  ``no_difference`` otherwise.

Why not the interval alone: a percentile bootstrap resamples the few values that were seen, and promises its
95 % for many runs only (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 14).
With five runs it leaves out the true ratio in 2 to 4 % of cases (``test_compare_verdicts.py``
simulates it), which over eight metrics is more than one comparison in twenty. The rank test has its level
exactly, whatever the noise is distributed like: it assumes nothing but that runs of one load with itself
could be swapped.

Why 1 % and not 5 %: a comparison has up to eight metrics, of which some hang together. At 1 % each, the
whole comparison of a load with itself says "no difference" everywhere in at least 19 of 20 cases. With five
runs each that means: every run of one must be faster than every run of the other.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

BETTER, WORSE = "better", "worse"
NO_DIFFERENCE, TOO_FEW_RUNS = "no_difference", "too_few_runs"
VERDICTS = (BETTER, WORSE, NO_DIFFERENCE, TOO_FEW_RUNS)
LEVEL = 0.01
"""The most a p value may be for a verdict."""
INTERVAL = 0.95
MIN_RUNS = 3
"""Fewer runs than these on one side say nothing about its spread, however many the other one has."""
NEGLIGIBLE = 0.01
"""A difference below this share of the baseline is none that anybody cares about."""
POWER = 0.9
"""How likely the runs that are recommended find the difference that was seen."""
MAX_RUNS = 1000
"""No recommendation exceeds this many runs."""
EXACT_RUNS = 24
"""Up to so many runs on both sides together, the rank test is counted out. Above, its normal approximation is
near enough, and a little too large where p is small: ``test_compare_verdicts.py``."""
EXACT_PAIRS = 10_000
"""Up to so many pairs of medians, the bootstrap distribution is computed; above, it is drawn."""
RESAMPLES = 5_000


@dataclass(frozen=True)
class Interval:
    """Bounds of the ratio of two medians."""

    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """What one metric of a variant is against the baseline's."""

    ratio: float | None
    """Median of the variant over that of the baseline; None where either is unknown or the baseline's is
    0."""
    interval: Interval | None
    """Of the ratio, at 95 %; None for single runs, and where a value is not positive."""
    p_value: float | None
    """Of the rank-sum test, two-sided; None where a side has no run."""
    verdict: str
    more_runs: int | None
    """Runs to add on each side, for a verdict on the difference that was seen; None where there is one, or
    where the difference is negligible."""


def judge(baseline: Sequence[float], values: Sequence[float], resolution: float = 0.0) -> Judgement:
    """Compares the runs of a variant with those of the baseline; see the module for the rule.

    Args:
        baseline: One value per run of the baseline, in any unit; lower is better.
        values: The same of the variant.
        resolution: A difference of medians below this is none.
    """
    if not baseline or not values:
        return Judgement(None, None, None, TOO_FEW_RUNS, _least_to_add(len(baseline), len(values)))
    before, after = statistics.median(baseline), statistics.median(values)
    difference = after - before
    ratio = after / before if before > 0 and after >= 0 else None
    interval = median_ratio_interval(baseline, values)
    p_value = rank_sum_p_value(baseline, values)
    negligible = is_negligible(before, after, resolution)
    enough = can_decide(len(baseline), len(values))
    certain = p_value <= LEVEL and (interval is None or not interval.low <= 1 <= interval.high)
    if not enough:
        verdict = TOO_FEW_RUNS
    elif negligible or not certain:
        verdict = NO_DIFFERENCE
    else:
        verdict = BETTER if difference < 0 else WORSE
    more = None
    if verdict == TOO_FEW_RUNS or (verdict == NO_DIFFERENCE and not negligible):
        more = runs_to_add(baseline, values, negligible)
    return Judgement(ratio, interval, p_value, verdict, more)


def is_negligible(before: float, after: float, resolution: float) -> bool:
    """Says whether two medians differ by less than 1 % of the first, or by less than is measured."""
    return abs(after - before) < max(NEGLIGIBLE * abs(before), resolution) or after == before


# -- the rank-sum test --------------------------------------------------------------------------------


def least_p_value(first: int, second: int) -> float:
    """Returns the smallest p value that so many runs on two sides can have: two in all ways to divide them.

    Five and five: 2 / 252 = 0.008; four and four: 2 / 70 = 0.029.
    """
    return min(1.0, 2 / math.comb(first + second, first))


def can_decide(first: int, second: int) -> bool:
    """Says whether so many runs on two sides can ever give a verdict."""
    return min(first, second) >= MIN_RUNS and least_p_value(first, second) <= LEVEL


def rank_sum_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns the two-sided p value of the Wilcoxon rank-sum test (the Mann-Whitney U test).

    Exact for few runs, with ties at their middle ranks: the share of all ways to divide the pooled values
    that are as far from the expected rank sum as the one that was seen (a permutation test on ranks). For
    many, by the normal approximation with the correction for ties (Lehmann, Nonparametrics, 1975, chapter 1).
    """
    pooled = sorted([*first, *second])
    total = len(pooled)
    places: dict[float, tuple[int, int]] = {}
    for place, value in enumerate(pooled, 1):
        places[value] = (places.get(value, (place, place))[0], place)
    # Twice the middle rank is a whole number.
    ranks = tuple(sum(places[value]) for value in pooled)
    seen = sum(sum(places[value]) for value in first)
    expected = len(first) * (total + 1)
    distance = abs(seen - expected)
    if total <= EXACT_RUNS:
        ways = _rank_sums(ranks, len(first))
        extreme = sum(count for rank_sum, count in ways.items() if abs(rank_sum - expected) >= distance)
        return extreme / math.comb(total, len(first))
    ties = sum((last - at + 1) ** 3 - (last - at + 1) for at, last in places.values())
    variance = len(first) * len(second) / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    # Half a step towards the middle: a continuous curve stands for whole numbers.
    deviations = max(0.0, distance / 2 - 0.5) / math.sqrt(variance)
    return 2 * (1 - statistics.NormalDist().cdf(deviations))


@lru_cache(maxsize=64)
def _rank_sums(ranks: tuple[int, ...], chosen: int) -> dict[int, int]:
    """Returns in how many ways ``chosen`` of the ranks have each sum."""
    ways: list[dict[int, int]] = [{} for _ in range(chosen + 1)]
    ways[0][0] = 1
    for rank in ranks:
        for size in range(chosen, 0, -1):
            into = ways[size]
            for rank_sum, count in ways[size - 1].items():
                into[rank_sum + rank] = into.get(rank_sum + rank, 0) + count
    return ways[chosen]


# -- the bootstrap interval ---------------------------------------------------------------------------


def median_ratio_interval(baseline: Sequence[float], values: Sequence[float]) -> Interval | None:
    """Returns the percentile bootstrap interval, at 95 %, of the ratio of two medians (Efron 1979).

    For few runs the bootstrap distribution is not drawn but computed, over all resamples: that of a median is
    known in closed form (:func:`_median_shares`), and the two sides are independent. For more, 5,000
    resamples are drawn with a fixed seed. Either way the same runs give the same interval.

    Returns:
        None where a side has fewer than two runs, or a value is not positive: a ratio then says nothing.
    """
    if min(len(baseline), len(values)) < 2 or min(*baseline, *values) <= 0:
        return None
    below, above = _resampled_medians(baseline), _resampled_medians(values)
    if len(below) * len(above) <= EXACT_PAIRS:
        ratios = sorted((after / before, share * other) for after, share in above for before, other in below)
    else:
        draw = random.Random(0)
        befores = draw.choices([m for m, _ in below], [share for _, share in below], k=RESAMPLES)
        afters = draw.choices([m for m, _ in above], [share for _, share in above], k=RESAMPLES)
        ratios = sorted(
            (after / before, 1 / RESAMPLES) for after, before in zip(afters, befores, strict=True)
        )
    tail = (1 - INTERVAL) / 2
    return Interval(_quantile(ratios, tail), _quantile(ratios, 1 - tail))


def _quantile(weighted: Sequence[tuple[float, float]], share: float) -> float:
    """Returns the first value at which the weights before and at it reach ``share``."""
    reached = 0.0
    for value, weight in weighted:
        reached += weight
        if reached >= share - 1e-12:
            return value
    return weighted[-1][0]


def _resampled_medians(values: Sequence[float]) -> list[tuple[float, float]]:
    """Returns every median that a resample can have, with its probability."""
    ordered = sorted(values)
    return [((ordered[low] + ordered[high]) / 2, share) for low, high, share in _median_shares(len(ordered))]


@lru_cache(maxsize=64)
def _median_shares(size: int) -> list[tuple[int, int, float]]:
    """Returns which two of so many values in order make the median of a resample, and how probably.

    A resample has at most the k-th value as its h-th smallest where at least h of n draws fall on the first
    k: a binomial probability (Maritz and Jarrett 1978). For odd n both are the same value. For even n the
    median is the mean of two middle values, whose joint probability follows in the same way.
    """
    half = size // 2
    if size % 2:
        up_to = [_at_least(size, half + 1, number / size) for number in range(size + 1)]
        return [(number, number, up_to[number + 1] - up_to[number]) for number in range(size)]
    up_to = [_at_least(size, half, number / size) for number in range(size + 1)]
    result = []
    ways = math.comb(size, half)
    for low in range(size):
        same = up_to[low + 1] - up_to[low]
        # Half of the draws at or below ``low``, one of them there; the other half at or above ``high``.
        lower = ((low + 1) / size) ** half - (low / size) ** half
        for high in range(low + 1, size):
            upper = ((size - high) / size) ** half - ((size - high - 1) / size) ** half
            joint = ways * lower * upper
            same -= joint
            result.append((low, high, joint))
        result.append((low, low, max(0.0, same)))
    return result


def _at_least(draws: int, least: int, share: float) -> float:
    """Returns the probability that at least ``least`` of so many draws hit a share of all values."""
    return sum(
        math.comb(draws, hits) * share**hits * (1 - share) ** (draws - hits)
        for hits in range(least, draws + 1)
    )


# -- how many runs it takes ---------------------------------------------------------------------------


def runs_to_add(baseline: Sequence[float], values: Sequence[float], negligible: bool = False) -> int:
    """Returns how many runs to add on each side so that the difference that was seen would be found.

    Noether's formula for the rank-sum test (Journal of the American Statistical Association 82, 1987): for
    equal sides, n = (a + b)² / (6 (p - 1/2)²), where a and b are the normal quantiles of the level and the
    power, and p is the probability that a run of one side exceeds one of the other. p is taken from the
    difference of the medians and the observed spread, as for normal noise: p = cdf(difference / (spread √2)).
    Single runs have no spread: then the answer is the least number of runs that can give a verdict.

    Args:
        baseline: Runs of the baseline.
        values: Runs of the variant.
        negligible: The difference that was seen is none: the least number that can say so is enough.
    """
    least = _least_to_add(len(baseline), len(values))
    spreads = [statistics.variance(side) for side in (baseline, values) if len(side) > 1]
    if negligible or not spreads:
        return least
    spread = math.sqrt(statistics.fmean(spreads))
    difference = abs(statistics.median(values) - statistics.median(baseline))
    if difference <= 0 or spread <= 0:
        return least
    normal = statistics.NormalDist()
    exceeds = normal.cdf(difference / (spread * math.sqrt(2)))
    if exceeds - 0.5 < 1e-6:
        return MAX_RUNS
    quantiles = normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
    wanted = math.ceil(quantiles**2 / (6 * (exceeds - 0.5) ** 2))
    # A verdict that did not come needs one run more at least.
    return min(MAX_RUNS, max(1, least, wanted - min(len(baseline), len(values))))


def _least_to_add(first: int, second: int) -> int:
    added = 0
    while not can_decide(first + added, second + added):
        added += 1
    return added
