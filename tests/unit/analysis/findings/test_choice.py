"""Which findings are shown and forbidden, by rule, name and severity."""

import pytest

import handmade
from handmade_loads import Session
from hftrace.analysis.budgets import check_forbidden, forbidden_words
from hftrace.analysis.findings.choice import Choice, choose, meant, rule_words
from hftrace.analysis.findings.registry import all_findings, catalogue, findings
from hftrace.analysis.findings.rules import SEVERITIES
from hftrace.analysis.findings.silence import claimed, doubts
from hftrace.errors import UsageError
from hftrace.render.silence import silence_words


def chosen(choice, trace=None):
    trace = trace or handmade.generation_a()
    choose(trace, choice)
    return {finding.rule for finding in findings(trace)}


EVERYTHING = {"R26", "R01", "R02", "H01", "H02"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), EVERYTHING),
        (Choice(select=rule_words(["r02, dtype-widened", "R01"])), {"R01", "R02"}),
        (Choice(ignore=rule_words(["R26"])), EVERYTHING - {"R26"}),
        (Choice(select=rule_words(["R02", "R01"]), ignore=rule_words(["dtype-widened"])), {"R01"}),
        (Choice(severity="warning"), EVERYTHING),
        (Choice(severity="error"), set()),
    ],
)
def test_what_is_chosen(choice, expected):
    assert chosen(choice) == expected


def test_a_rule_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match=r"no rule 'R99': 'hftrace explain' lists all"):
        rule_words(["R99"])
    with pytest.raises(UsageError, match="did you mean dtype-widened"):
        rule_words(["dtype-widen"])


def test_what_is_left_out_is_no_claim_that_there_is_nothing():
    trace = handmade.lazy()
    assert all_findings(trace)
    choose(trace, Choice(severity="error"))
    assert findings(trace) == []
    assert not claimed(trace)
    assert silence_words(doubts(trace)[0]).startswith("1 finding is left out, as --select")


def test_every_finding_has_a_severity_of_the_three():
    assert {kind.severity for kind in catalogue()} == set(SEVERITIES)
    for made in handmade.ALL.values():
        assert {finding.severity for finding in findings(made())} <= set(SEVERITIES)


@pytest.mark.parametrize(
    ("word", "count"), [("R02", 1), ("Dtype-Widened", 1), ("R20", 0), ("error", 0), ("warning", 5)]
)
def test_findings_can_be_forbidden(word, count):
    result = check_forbidden(handmade.generation_a(), *forbidden_words([word]))
    assert result.found == count
    assert (result.status == "broken") == bool(count)
    assert not count or "R" in result.detail


def test_one_parser_for_all_options():
    assert forbidden_words(["R02, dtype-widened", "cast,R02"]) == ["R02", "dtype-widened", "cast"]
    told = {"R27", "R30", "R38", "R42", "R43"}
    assert rule_words(["r21"]) == rule_words(["Overwritten-or-mis-tied"]) == told
    assert forbidden_words(["overwritten-or-mis-tied"]) == ["R21"]
    assert told <= {kind.id for kind in catalogue()}
    with pytest.raises(UsageError, match=r"nothing is called 'R99' that can be forbidden"):
        forbidden_words(["R02,R99"])


def test_a_rule_that_others_tell_is_forbidden_by_them():
    made = Session()
    load = made.load("AutoModel", "a", "A", got={})
    made.tensor("held.weight", [4], verified=False, provenance="unknown", load=load)
    assert {finding.rule for finding in findings(made.trace())} & meant("R21") == {"R38"}
    assert check_forbidden(made.trace(), "R21").found == 1
    assert check_forbidden(handmade.generation_a(), "R21").found == 0


def test_what_is_forbidden_holds_whatever_is_shown():
    trace = handmade.generation_a()
    choose(trace, Choice(severity="error"))
    assert check_forbidden(trace, "R02").found == 1


def test_a_fix_is_for_the_version_in_the_trace():
    fixes = {finding.rule: finding.fix for finding in findings(handmade.generation_a()) if finding.fix}
    assert fixes["R02"].keywords == {"torch_dtype": "auto"}
    assert fixes["R01"].keywords == {"low_cpu_mem_usage": True}
    newer = {finding.rule: finding for finding in findings(handmade.sharded())}["R02"]
    assert newer.to_json()["fix"] == {"keywords": {"dtype": "bfloat16"}, "environment": {}}
    assert newer.numbers["extra_bytes"] == newer.cost_bytes
