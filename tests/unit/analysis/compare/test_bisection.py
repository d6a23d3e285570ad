"""The search of a bisection, the side on which a version lies, and how it is drawn."""

import json
from pathlib import Path

import jsonschema
import pytest

import hftrace
from handmade_compare import STEADY, load
from hftrace.analysis.compare.bisection import (
    BAD,
    GOOD,
    SKIPPED,
    Bisection,
    Search,
    Step,
    bisection_facts,
    place,
)
from hftrace.analysis.compare.comparison import compare
from hftrace.analysis.compare.ranking import NAMES, ranking
from hftrace.analysis.compare.variants import Variant
from hftrace.analysis.compare.verdicts import BETTER, NO_DIFFERENCE, WORSE
from hftrace.render.bisection import answer, draw
from hftrace.render.compare.options import CompareOptions

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(hftrace.__file__).parent / "schema" / "json" / "bisect.schema.json").read_text("utf-8"))
)
RETURNED = NAMES["returned"]


def runs(name, scale, factors=STEADY):
    return Variant.of(name, [load(scale * factor) for factor in factors])


def searched(labels, side_of):
    search = Search(labels)
    tried = []
    while (label := search.next()) is not None:
        tried.append(label)
        search.mark(label, side_of(label))
    return search, tried


@pytest.mark.parametrize("first_bad", range(1, 40))
def test_every_place_is_found_in_few_steps(first_bad):
    search, tried = searched(list(range(40)), lambda label: BAD if label >= first_bad else GOOD)
    assert search.suspects == [first_bad]
    assert search.last_good == first_bad - 1
    assert len(tried) <= 6


def test_what_is_skipped_stays_suspect():
    search, tried = searched(
        list("abcdefg"), lambda label: None if label in "cd" else BAD if label >= "d" else GOOD
    )
    assert search.last_good == "b"
    assert search.suspects == ["c", "d", "e"]
    assert len(set(tried)) == len(tried)


def test_what_is_skipped_is_none_where_it_lies_elsewhere():
    search, _ = searched(
        list("abcdefg"), lambda label: None if label == "d" else BAD if label >= "c" else GOOD
    )
    assert search.suspects == ["c"]


def test_two_versions_need_no_step():
    search = Search(["a", "b"])
    assert search.next() is None
    assert search.suspects == ["b"]


@pytest.mark.parametrize(
    ("scale", "side", "between"),
    [
        (1.0, GOOD, False),
        (2.0, BAD, False),
        (0.5, GOOD, False),
        (3.0, BAD, False),
        (1.2, GOOD, True),
        (1.8, BAD, True),
    ],
)
def test_the_side_is_that_of_the_nearer_end(scale, side, between):
    # Its own noise: equal runs would tie with an end's.
    step = runs("step", scale, (1.01, 0.985, 1.0, 1.015, 0.99))
    placed = place(step, runs("good", 1.0), runs("bad", 2.0), RETURNED)
    assert (placed.side, placed.between) == (side, between)


def test_what_spreads_over_both_ends_has_no_side():
    step = runs("step", 1.0, (0.95, 2.1, 1.5, 1.0, 2.0))
    placed = place(step, runs("good", 1.0), runs("bad", 2.0), RETURNED)
    assert placed.side is None
    assert {placed.against_good.verdict, placed.against_bad.verdict} == {NO_DIFFERENCE}


def found(last_good=1.0, first_bad=2.0, suspects=("3.0",)):
    groups = [
        ("2.0", [load(last_good * each) for each in STEADY]),
        ("3.0", [load(first_bad * each) for each in STEADY]),
    ]
    compared = compare(groups)
    good, bad = (variant.values["returned_ns"] for variant in compared.variants)
    placed = place(compared.variants[1], *compared.variants, RETURNED)
    steps = [
        Step("1.0", GOOD, values={GOOD: good}),
        Step("4.0", BAD, values={BAD: bad}),
        Step("2.5", SKIPPED, "it cannot be installed"),
        Step("3.0", BAD, transformers="3.0", values={GOOD: good, "step": bad, BAD: bad}, placement=placed),
    ]
    names = ["1.0", "2.0", "2.5", "3.0", "4.0"]
    return Bisection(
        RETURNED,
        "1.0",
        "4.0",
        names,
        steps,
        "2.0",
        list(suspects),
        "traces/x",
        compared,
        compared,
        "traces/x/02-3.0",
    )


def test_facts_name_the_version_and_what_changed():
    facts = bisection_facts(found())
    SCHEMA.validate(facts)
    assert (facts["first_bad"], facts["last_good"], facts["proven"]) == ("3.0", "2.0", True)
    assert facts["verdict"] == WORSE
    assert facts["ratio"] == pytest.approx(2.0, rel=0.01)
    # The phases add up to the difference of the medians.
    low, high = (
        facts["comparison"]["variants"][name]["metrics"]["returned_ns"]["median"] for name in ("2.0", "3.0")
    )
    assert sum(facts["phases"].values()) == high - low > 0
    assert [step["side"] for step in facts["steps"]] == [GOOD, BAD, SKIPPED, BAD]
    assert facts["steps"][3]["against_good"]["verdict"] == WORSE


def drawn(bisection):
    options = CompareOptions(ranking(bisection.proof, RETURNED), "model")
    lines = [line for block in draw(bisection, options) for line in block.lines(100)]
    return "\n".join("".join(text for text, _ in line) for line in lines)


def test_the_screen_says_the_answer_the_steps_and_the_reason():
    text = drawn(found())
    assert "The first bad version is 3.0; 2.0 is still good" in text
    assert "it cannot be installed" in text
    assert "Why: 3.0 against 2.0" in text
    assert "next: hftrace compare traces/x/02-3.0 --view phases" in text


def test_what_is_not_proven_is_said():
    assert "not worse for certain" in answer(found(first_bad=1.0))
    assert "one of these brought returned: 2.5, 3.0" in answer(found(suspects=("2.5", "3.0")))


def test_ends_that_do_not_differ_leave_nothing_to_find():
    same = compare([("1.0", [load(each) for each in STEADY]), ("4.0", [load(each) for each in STEADY])])
    nothing = Bisection(RETURNED, "1.0", "4.0", ["1.0", "4.0"], [], None, [], "x", same)
    assert answer(nothing) == "nothing to find: of 4.0 against 1.0, returned is no difference"
    assert bisection_facts(nothing)["first_bad"] is None
    SCHEMA.validate(bisection_facts(nothing))
    assert not nothing.is_proven
    better = compare([("1.0", [load(2 * each) for each in STEADY]), ("4.0", [load(each) for each in STEADY])])
    assert better.differences[0].judgements["returned_ns"].verdict == BETTER
