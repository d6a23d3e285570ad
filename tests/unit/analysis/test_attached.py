"""What a trace says of loads that had begun when somebody attached; of a file that says anything at all."""

import dataclasses

import pytest

from handmade import Builder
from hftrace.analysis.attached import UnderWay, is_attached, under_way
from hftrace.analysis.findings.registry import all_findings
from hftrace.render.loads import title_of
from hftrace.schema.model import Facts

LOAD = {
    "thread": "MainThread",
    "main": True,
    "function": "PreTrainedModel.from_pretrained",
    "caller": "app.py:3",
    "waits": {"call": "openat", "file": "/m/w"},
    "stack": 'File "x.py", line 1 in f\nFile "app.py", line 3 in <module>',
}


def made(attached):
    """Returns a trace without a load."""
    trace = Builder().trace()
    header = {**trace.header, "command": "attach", "attached": attached}
    return dataclasses.replace(trace, header=Facts(header), request=Facts({}))


def trace(**attached):
    return made(attached)


@pytest.mark.parametrize(("still", "ended"), [(None, None), ([], True), ([LOAD], False)])
def test_a_load_that_had_begun(still, ended):
    found = trace(time_ns=0, under_way=[LOAD], **({} if still is None else {"still_under_way": still}))
    (load,) = under_way(found)
    assert load == UnderWay(
        LOAD["function"],
        "MainThread",
        "app.py:3",
        'File "x.py", line 1 in f',
        "waiting in openat of /m/w",
        ended,
    )
    (finding,) = [each for each in all_findings(found) if each.rule == "H07"]
    assert "called at app.py:3, on MainThread, which stood at" in finding.evidence
    assert ("had not returned at the end" in finding.evidence) == (ended is False)
    assert ("returned meanwhile" in finding.evidence) == (ended is True)
    assert title_of(found, 80) == "no whole load"


@pytest.mark.parametrize(
    "attached",
    [None, 3, [], {}, {"under_way": 3}, {"under_way": [3, None]}, {"under_way": {}, "still_under_way": 7}],
)
def test_a_file_may_say_anything(attached):
    found = made(attached)
    assert under_way(found) == ()
    assert is_attached(found) == isinstance(attached, dict)
    assert [each for each in all_findings(found) if each.rule == "H07"] == []
    said = made({"under_way": [{"function": 3, "waits": 7, "stack": []}]})
    assert under_way(said) == (UnderWay("a load", "an unknown thread", None, None, None, None),)
