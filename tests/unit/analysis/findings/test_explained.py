"""The pages of the rules: each has one, and it says what a page has to."""

from pathlib import Path

import pytest
from click.testing import CliRunner

import hftrace.analysis.findings
from hftrace.analysis.findings.explained import PARTS, explanation, explanations
from hftrace.analysis.findings.registry import catalogue
from hftrace.cli.explain import command
from hftrace.errors import UsageError
from hftrace.render.explained import page

PAGES = Path(hftrace.analysis.findings.__file__).with_name("pages")


@pytest.mark.parametrize("rule", sorted({kind.id for kind in catalogue()}))
def test_every_rule_has_a_page(rule):
    parts = explanation(rule).parts()
    assert set(parts) == set(PARTS.values())
    assert all(parts[name] for name in ("cause", "looks", "fix"))


def test_no_page_is_of_no_rule():
    assert {path.stem for path in PAGES.iterdir()} == {each.rule for each in explanations()}


@pytest.mark.parametrize("word", ["R20", "r20", "unused-keys", "Missing-Weights"])
def test_a_rule_goes_by_its_id_and_by_its_names(word):
    assert explanation(word).title == "R20 missing-weights, unused-keys"


def test_what_other_rules_tell_says_which():
    assert "R27" in explanation("R21").page
    assert explanation("R21").kinds == []


def test_a_rule_that_does_not_exist():
    with pytest.raises(UsageError, match="no rule 'R04b'"):
        explanation("R04b")


def test_no_line_is_wider_than_the_screen():
    for each in explanations():
        for width in (40, 80):
            lines = ["".join(text for text, _ in line) for line in page(each).lines(width)]
            assert max(map(len, lines)) <= width, each.rule


def test_the_command():
    done = CliRunner().invoke(command, ["R02"])
    assert done.exit_code == 0
    assert 'dtype="auto"; torch_dtype="auto" before 4.56.' in done.output
    listed = CliRunner().invoke(command, [])
    assert all(f"{kind.id}  {kind.severity}" in listed.output for kind in catalogue())
