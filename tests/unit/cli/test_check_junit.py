"""Budgets as a JUnit file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

import handmade
from hftrace.analysis.budgets import Result
from hftrace.cli.main import main
from hftrace.render.budgets import Checked
from hftrace.render.junit import junit


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["check", *map(str, arguments)])
    return left.value.code, capsys.readouterr()


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "t.json"
    handmade.healthy().save(path)
    return path


def parsed(path):
    return ElementTree.fromstring(Path(path).read_text("utf-8"))


def test_a_case_for_each_budget(trace, tmp_path, capsys):
    out = tmp_path / "junit.xml"
    options = ("--max-time", "1ms", "--max-peak", "900GB", "--forbid", "pickle", "--junit", out)
    code, _ = run(capsys, trace, *options)
    assert code == 3
    root = parsed(out)
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "0")
    (suite,) = root
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == ["--max-time session", "--max-peak total peak", "--forbid pickle"]
    (failure,) = cases["--max-time session"]
    assert "at most 1.0 ms was asked" in failure.get("message")
    assert {case.get("classname") for case in suite} == {str(trace)}
    assert run(capsys, trace, "--max-peak", "900GB", "--junit", out)[0] == 0, "over that of a run before"
    assert parsed(out).get("failures") == "0"


def test_what_a_trace_does_not_say():
    results = [Result("--max-read", "read", "bytes", 5, None, "no counters")]
    asked = Checked("t.json", None, results, [])
    assert 'failures="1"' in junit([asked])
    allowed = ElementTree.fromstring(junit([asked], allow_unknown=True))
    assert (allowed.get("failures"), allowed.get("skipped")) == ("0", "1")


def test_a_trace_without_a_load_is_an_error():
    root = ElementTree.fromstring(junit([Checked("t.json", "there is no load", [], [])]))
    assert (root.get("errors"), root.get("tests")) == ("1", "1")


def test_names_cannot_become_markup():
    name = 'a<b>&"\x1b[2J\x00\ufffe]]>\ud800'
    results = [Result("--forbid", name, "count", 0, 3, name)]
    root = ElementTree.fromstring(junit([Checked(name, None, results, [])]))
    assert root[0].get("name") == 'a<b>&"]]>'
    assert [child.tag for child in root.iter()] == ["testsuites", "testsuite", "testcase", "failure"]


def test_a_file_that_cannot_be_written(trace, tmp_path, capsys):
    code, said = run(capsys, trace, "--max-peak", "900GB", "--junit", tmp_path / "no" / "x.xml")
    assert code == 1
    assert "cannot write" in said.err


def test_it_goes_with_json(trace, tmp_path, capsys):
    code, said = run(capsys, trace, "--max-peak", "900GB", "--json", "--junit", tmp_path / "j.xml")
    assert code == 0
    assert json.loads(said.out)["ok"]
    assert os.path.getsize(tmp_path / "j.xml")
