"""Findings on the first screen: what several loads have in common stands there once."""

from dataclasses import replace

import pytest

from handmade import Builder
from hftrace.analysis.findings.registry import Finding, findings
from hftrace.render.findings import order_of, short_list, word_of

NOPE = "OSError: Repo id must be in the form 'repo_name'"


def session(models, fine=()):
    """Loads of folders that are not there, and between them others that were fine, by their place."""
    made = Builder()
    for number, model in enumerate(models):
        asked = {"class": "AutoModel", "model": model, "keywords": {}}
        failed = number not in fine
        noted = {"model": model, "request": asked} | ({"error": NOPE} if failed else {})
        status = "error" if failed else "ok"
        made.span(None, "load", "AutoModel", number * 10, number * 10 + 5, status=status, attributes=noted)
    return made.trace()


@pytest.mark.parametrize(
    ("loads", "fine", "title"),
    [
        (1, (), "There is no folder ./nope"),
        (2, (), "loads 1, 2: There is no folder ./nope"),
        (4, (), "loads 1\N{EN DASH}4: There is no folder ./nope"),
        (4, (1, 2), "loads 1, 4: There is no folder ./nope"),
        (12, (1, 3), "loads 1, 3, 5, 6 and 6 more: There is no folder ./nope"),
    ],
)
def test_what_several_loads_failed_for(loads, fine, title):
    trace = session(["./nope"] * loads, fine)
    shown, more = short_list(trace, 4)
    assert [each.title for each in shown] == [title]
    assert more == 0
    assert len(findings(trace)) == loads - len(fine)


def test_what_differs_stays_apart_and_what_is_left_out_is_counted():
    shown, more = short_list(session(["./a", "./b", "./a", "./c", "./b"]), 2)
    assert [each.title for each in shown] == [
        "loads 1, 3: There is no folder ./a",
        "loads 2, 5: There is no folder ./b",
    ]
    assert more == 1


def test_what_it_costs_is_of_all_of_them(monkeypatch):
    trace = session(["./nope"] * 3)
    priced = [replace(each, cost_ns=7, cost_bytes=None) for each in findings(trace)]
    monkeypatch.setattr("hftrace.render.findings.findings", lambda trace: priced)
    ((found,), _) = short_list(trace, 4)
    assert (found.cost_ns, found.cost_bytes) == (21, None)


def test_what_is_no_fault_is_not_listed_as_wrong():
    found = Finding("R20", "unused-keys", "2 keys went nowhere", "", "", concerns="weights", severity="info")
    assert (word_of(found)[0], order_of([found])) == ("note", "by cost")
    wrong = replace(found, severity="warning")
    assert (word_of(wrong)[0], order_of([found, wrong])) == ("wrong", "wrong ones first, then by cost")
