"""Groups of runs in order, and the call of the best."""

from __future__ import annotations

from handmade_compare import five, runs, same
from hftrace.analysis.compare.comparison import compare
from hftrace.analysis.compare.ranking import NAMES, call_of, default_metric, ranking, ranking_facts
from hftrace.analysis.compare.verdicts import BETTER, NO_DIFFERENCE, TOO_FEW_RUNS
from hftrace.cli.compare import SORTS


def names(ranked):
    return [variant.name for variant in ranked.variants]


def test_the_command_line_knows_every_metric():
    assert set(SORTS) == set(NAMES)


def test_best_median_first_and_the_order_follows_the_metric():
    made = compare(
        [
            ("slow, lean", runs(weights_ms=4_000)),
            ("quick, large", runs(weights_ms=400, peak=900_000_000)),
            ("between", runs(weights_ms=1_500, peak=400_000_000)),
        ]
    )
    assert names(ranking(made, NAMES["returned"])) == ["quick, large", "between", "slow, lean"]
    assert names(ranking(made, NAMES["total-peak"])) == ["slow, lean", "between", "quick, large"]


def test_a_baseline_need_not_be_the_first():
    made = compare([("slow", runs(weights_ms=4_000)), ("quick", runs())], baseline="slow")
    ranked = ranking(made, NAMES["returned"])
    assert names(ranked) == ["quick", "slow"]
    assert ranked.against_second.verdict == BETTER
    assert ranked.best.name == "quick"


def test_the_first_may_be_no_better_than_the_second():
    ranked = ranking(compare(same()), NAMES["returned"])
    assert ranked.against_second.verdict == NO_DIFFERENCE
    few = ranking(compare([("one", runs((1.0,))), ("two", runs((3.0,)))]), NAMES["returned"])
    assert few.against_second.verdict == TOO_FEW_RUNS


def test_groups_without_the_figure_come_last_and_there_may_be_no_winner():
    made = compare([("plain", runs()), ("touched", runs(touch_ms=40))])
    assert names(ranking(made, NAMES["ready"])) == ["touched", "plain"]
    assert ranking(made, NAMES["device-peak"]).best is None
    assert ranking_facts(ranking(made, NAMES["device-peak"]))["call"] is None


def test_ready_counts_where_it_was_measured():
    assert default_metric(compare([("plain", runs()), ("touched", runs(touch_ms=40))])).key == "ready_ns"
    assert default_metric(compare(same())).key == "returned_ns"


def test_the_call_can_be_pasted():
    made = compare(five())
    best = ranking(made, NAMES["returned"]).best
    call = call_of(best, "dir/model")
    parsed = compile(call, "call", "eval")
    assert "from_pretrained" in parsed.co_names
    assert "'dir/model'" in call


def test_facts():
    ranked = ranking(compare(same()), NAMES["returned"])
    facts = ranking_facts(ranked, "here")
    assert facts["metric"] == "returned_ns"
    assert sorted(facts["order"]) == ["first", "second"]
    assert facts["best"] == facts["order"][0]
    assert facts["verdict"] == NO_DIFFERENCE
    assert "from_pretrained('here'" in facts["call"]
