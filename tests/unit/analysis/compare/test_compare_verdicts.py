"""Is it noise: the rule for a verdict, held against simulated noise of several kinds."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest

from handmade_compare import heavy_tailed
from hftrace.analysis.compare import verdicts
from hftrace.analysis.compare.verdicts import (
    BETTER,
    NO_DIFFERENCE,
    TOO_FEW_RUNS,
    WORSE,
    Interval,
    can_decide,
    judge,
    least_p_value,
    median_ratio_interval,
    rank_sum_p_value,
    runs_to_add,
)

NOISES = {
    "normal": lambda draw: 1 + draw.gauss(0, 0.03),
    "heavy-tailed": heavy_tailed,
    "skewed": lambda draw: draw.lognormvariate(0, 0.4),
    "two-modes": lambda draw: draw.choice((1.0, 1.4)) * (1 + draw.gauss(0, 0.01)),
    "rounded": lambda draw: round(10 + draw.gauss(0, 1)),
    "cauchy": lambda draw: 10 + abs(math.tan(math.pi * (draw.random() - 0.5))),
}


def verdict_share(noise, count, factor, times, seed):
    """The share of comparisons with a verdict, and of those in the right direction."""
    draw = random.Random(seed)
    found = [
        judge([noise(draw) for _ in range(count)], [factor * noise(draw) for _ in range(count)]).verdict
        for _ in range(times)
    ]
    return 1 - found.count(NO_DIFFERENCE) / times, found.count(WORSE) / times


@pytest.mark.parametrize("count", [5, 10])
@pytest.mark.parametrize("name", NOISES)
def test_a_load_against_itself_is_no_difference(name, count):
    wrong, _ = verdict_share(NOISES[name], count, 1.0, 250, seed=count)
    assert wrong <= 0.05


def test_a_whole_comparison_of_a_load_with_itself_is_no_difference():
    """Eight metrics that hang together as in real loads, with runs that something held up now and then."""
    draw = random.Random(17)

    def run():
        load, imports, touch = 3 * heavy_tailed(draw), 5 * heavy_tailed(draw), heavy_tailed(draw)
        anonymous = 500 + draw.gauss(0, 8)
        total = anonymous + 200 + draw.gauss(0, 8)
        returned = load + 0.05 * imports
        return (returned, returned + touch, load, imports, anonymous, total, 0, max(0.0, draw.gauss(0, 9)))

    wrong = 0
    for _ in range(300):
        sides = [list(zip(*[run() for _ in range(5)], strict=True)) for _ in range(2)]
        wrong += any(judge(*pair).verdict != NO_DIFFERENCE for pair in zip(*sides, strict=True))
    assert wrong / 300 <= 0.05


def test_eight_metrics_that_have_nothing_in_common():
    """The worst case, which no load is."""
    draw = random.Random(7)
    wrong = 0
    for _ in range(250):
        sides = [[[heavy_tailed(draw) for _ in range(5)] for _ in range(2)] for _ in range(8)]
        wrong += any(judge(*pair).verdict != NO_DIFFERENCE for pair in sides)
    # Eight times 1/126 are 6 %.
    assert wrong / 250 <= 0.08
    times = [[heavy_tailed(draw) for _ in range(5)] for _ in range(2)]
    assert judge(*times).verdict == judge(*[[2 * value for value in side] for side in times]).verdict


@pytest.mark.parametrize(("count", "least"), [(5, 0.99), (10, 1.0)])
def test_a_real_difference_is_found(count, least):
    _, right = verdict_share(NOISES["normal"], count, 1.2, 150, seed=1)
    assert right >= least


def test_a_real_difference_is_found_among_outliers():
    _, right = verdict_share(heavy_tailed, 10, 1.2, 100, seed=2)
    assert right >= 0.8


def test_what_the_interval_alone_would_do():
    """The figure that the module's text gives: more than the one in a hundred that eight metrics allow."""
    draw = random.Random(5)
    outside = 0
    for _ in range(1000):
        interval = median_ratio_interval(*[[heavy_tailed(draw) for _ in range(5)] for _ in range(2)])
        outside += not interval.low <= 1 <= interval.high
    assert 0.015 <= outside / 1000 <= 0.05


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_too_few_runs_however_clear(count):
    verdict = judge([1.0 + number / 100 for number in range(count)], [9.0] * count)
    assert verdict.verdict == TOO_FEW_RUNS
    assert verdict.more_runs >= 5 - count


def test_single_runs_have_a_ratio_and_no_interval():
    one = judge([2.0], [3.0])
    assert (one.ratio, one.interval, one.verdict, one.more_runs) == (1.5, None, TOO_FEW_RUNS, 4)


def test_no_runs_at_all():
    nothing = judge([], [])
    assert nothing == verdicts.Judgement(None, None, None, TOO_FEW_RUNS, 5)
    assert judge([1.0] * 5, []).verdict == TOO_FEW_RUNS


def test_uneven_numbers_of_runs():
    assert can_decide(5, 5)
    assert can_decide(4, 6)
    assert can_decide(3, 9)
    assert not can_decide(4, 5)
    assert not can_decide(2, 500)
    assert not can_decide(1, 10_000)
    assert least_p_value(5, 5) == pytest.approx(2 / 252)


def test_better_and_worse():
    base, faster = [10.0, 10.1, 9.9, 10.2, 9.8], [8.0, 8.1, 7.9, 8.2, 7.8]
    assert judge(base, faster).verdict == BETTER
    assert judge(faster, base).verdict == WORSE
    assert judge(base, faster).more_runs is None
    assert judge(base, faster).ratio == 0.8


def test_a_difference_that_nobody_cares_about_is_none():
    base = [1000.0, 1000.1, 1000.2, 999.9, 999.8]
    assert judge(base, [value * 1.005 for value in base]).verdict == NO_DIFFERENCE
    assert judge(base, [value * 1.02 for value in base]).verdict == WORSE
    assert judge(base, [value * 1.02 for value in base], resolution=50).verdict == NO_DIFFERENCE
    assert judge(base, [value * 1.005 for value in base]).more_runs is None
    assert judge([0] * 5, [0] * 5).verdict == NO_DIFFERENCE


def test_a_baseline_of_nothing_has_a_verdict_and_no_ratio():
    found = judge([0] * 5, [90_000_000 + number for number in range(5)], resolution=1_000_000)
    assert (found.ratio, found.interval, found.verdict) == (None, None, WORSE)


def test_the_same_runs_give_the_same_answer():
    draw = random.Random(3)
    for count in (5, 8, 12, 40):
        pair = [[heavy_tailed(draw) for _ in range(count)] for _ in range(2)]
        assert judge(*pair) == judge(*pair)
        assert judge(*map(list, map(reversed, pair))) == judge(*pair)


def test_the_p_value_is_that_of_all_divisions():
    for first, second in (
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]),
        ([1, 5, 3, 3], [3, 4, 8]),
        ([1, 1, 1], [1, 1, 1]),
        ([2.5, 1.0, 7.0], [3.0, 2.5, 9.0, 11.0, 4.0]),
    ):
        pooled = [*first, *second]
        ordered = sorted(pooled)
        rank = {value: (2 * ordered.index(value) + ordered.count(value) + 1) / 2 for value in pooled}
        middle = len(first) * (len(pooled) + 1) / 2
        seen = abs(sum(rank[value] for value in first) - middle)
        ways = list(itertools.combinations(pooled, len(first)))
        extreme = sum(abs(sum(rank[value] for value in way) - middle) >= seen - 1e-9 for way in ways)
        assert rank_sum_p_value(first, second) == pytest.approx(extreme / len(ways))


def test_the_approximation_meets_the_exact_value(monkeypatch):
    draw = random.Random(9)
    pairs = [[[draw.gauss(shift, 1) for _ in range(12)] for shift in (0, 0.12 * step)] for step in range(12)]
    exact = [rank_sum_p_value(*pair) for pair in pairs]
    assert any(0.003 < value < 0.03 for value in exact)
    monkeypatch.setattr(verdicts, "EXACT_RUNS", 0)
    for pair, value in zip(pairs, exact, strict=True):
        assert rank_sum_p_value(*pair) == pytest.approx(value, abs=0.01)
        assert value > 0.05 or value <= rank_sum_p_value(*pair) <= 1.5 * value
    assert rank_sum_p_value([1.0] * 20, [1.0] * 20) == 1.0


@pytest.mark.parametrize(("first", "second"), [(5, 5), (6, 7), (10, 4), (2, 3)])
def test_the_interval_is_that_of_many_resamples(first, second):
    draw = random.Random(first)
    base, values = ([heavy_tailed(draw) for _ in range(count)] for count in (first, second))
    exact = median_ratio_interval(base, values)
    ratios = sorted(
        statistics.median(draw.choices(values, k=second)) / statistics.median(draw.choices(base, k=first))
        for _ in range(8_000)
    )
    assert exact.low == pytest.approx(ratios[200], rel=0.03)
    assert exact.high == pytest.approx(ratios[-200], rel=0.03)


@pytest.mark.parametrize("size", range(2, 25))
def test_the_shares_of_medians_are_probabilities(size):
    shares = [share for _, _, share in verdicts._median_shares(size)]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= 0


def test_many_runs_are_drawn_with_a_fixed_seed():
    draw = random.Random(4)
    base, values = ([heavy_tailed(draw) for _ in range(60)] for _ in range(2))
    assert isinstance(median_ratio_interval(base, values), Interval)
    assert median_ratio_interval(base, values) == median_ratio_interval(base, values)


def test_more_runs_for_a_smaller_difference():
    base = [1.0, 1.04, 0.96, 1.02, 0.98]
    needed = [runs_to_add(base, [value * factor for value in base]) for factor in (1.02, 1.05, 1.2)]
    assert needed[0] > needed[1] >= needed[2] >= 1
    assert runs_to_add([1.0], [2.0]) == 4
    assert runs_to_add(base, base) >= 0
    assert runs_to_add([1.0, 100.0], [1.0001, 100.0001]) == verdicts.MAX_RUNS


def test_the_runs_that_are_recommended_find_the_difference():
    base, factor = [1.0, 1.05, 0.95, 1.02, 0.97], 1.06
    wanted = 5 + runs_to_add(base, [value * factor for value in base])
    spread = statistics.stdev(base)
    draw = random.Random(11)
    found = sum(
        judge(
            [draw.gauss(1, spread) for _ in range(wanted)],
            [draw.gauss(factor, spread) for _ in range(wanted)],
        ).verdict
        == WORSE
        for _ in range(60)
    )
    assert found >= 45
