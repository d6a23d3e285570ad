"""Comparisons and budgets as people see them; the files are in snapshots/."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len
from test_render_screens import ESCAPE, compare, draw

import handmade
from handmade_compare import GROUPS, load, runs
from hftrace.analysis.budgets import check, limit
from hftrace.analysis.compare.comparison import compare as compared
from hftrace.analysis.compare.ranking import NAMES, default_metric, ranking
from hftrace.analysis.compare.variants import METRICS, Variant
from hftrace.render import budgets
from hftrace.render.compare import VIEWS
from hftrace.render.compare import load as load_view
from hftrace.render.compare.markdown import code, markdown
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.reasons import describe_tensors
from hftrace.render.compare.screen import next_view, screen
from hftrace.render.compare.words import both_known
from hftrace.render.registry import ALL, shown_by
from hftrace.render.text import TIMES, stack

EVIL = ("\x1b", "\x9b", "\u202e", "\x07", "\r")


def hostile():
    """Names that steer a terminal, break a table, or call people."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e| `@everyone` <img src=x> [red]x[/red]\n"
    trace = handmade.hostile()
    trace.request._values["keywords"] = {evil: evil}
    other = load(function=evil)
    other.environment._values["transformers"] = evil
    return [(evil, [load()]), ("other" + evil, [other]), ("hostile", [trace])]


def view_of(comparison, name, metric=None, model=None):
    """Returns a view of a comparison, or its default screen, as one block."""
    options = CompareOptions(ranking(comparison, metric or default_metric(comparison)), model)
    if name is None:
        return stack(*screen(comparison, options))
    return stack(*(b for each in shown_by(VIEWS, name) for b in load_view(each).draw(comparison, options)))


EVERY = {**GROUPS, "hostile": hostile}


@pytest.fixture(scope="module")
def made():
    return {name: compared(groups()) for name, groups in EVERY.items()}


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", GROUPS)
def test_screens(made, name, width):
    compare(f"compare-{name}-{width}", draw(view_of(made[name], None), width))


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("view", ["phases", "memory", "tensors", "files"])
@pytest.mark.parametrize("name", ["slow-init", "five"])
def test_views(made, name, view, width):
    compare(f"compare-{name}-{view}-{width}", draw(view_of(made[name], view), width))


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("metric", ["returned", "device-peak"])
def test_rankings(made, metric, width):
    text = draw(view_of(made["five"], "ranking", NAMES[metric], "dir/model"), width)
    compare(f"compare-five-ranking-{metric}-{width}", text)


def test_a_ranking_of_hostile_names_stays_text(made):
    text = draw(view_of(made["hostile"], "ranking", NAMES["returned"], "\x1b[2J"), 80)
    assert not any(character in text for character in EVIL)


def test_in_ascii(made):
    text = draw(view_of(made["five"], "all"), 80, "ascii")
    assert text.isascii()
    compare("compare-five-80-ascii", text)


@pytest.mark.parametrize("name", GROUPS)
def test_as_markdown(made, name):
    compare(f"compare-{name}-markdown", markdown(made[name]))


def test_many_groups_stand_in_several_tables():
    many = compared([(f"variant number {number}", runs(dtype="bfloat16")) for number in range(9)])
    compare("compare-nine-80", draw(view_of(many, "summary"), 80))


@pytest.mark.parametrize("width", [40, 61, 80, 109, 110, 140, 300])
@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_wider_than_the_screen(made, name, width):
    for line in draw(view_of(made[name], "all"), width).splitlines():
        assert cell_len(line) <= width
        assert line == line.rstrip()


@pytest.mark.parametrize("width", [40, 80, 140])
@pytest.mark.parametrize("name", ["slow-init", "five"])
def test_every_variant_and_every_verdict_is_there(made, name, width):
    """However narrow the screen is: no column falls off its right end."""
    text = draw(view_of(made[name], "summary"), width)
    wanted = sum(
        both_known(difference, metric) for difference in made[name].differences for metric in METRICS
    )
    words = r"better|worse|no difference|too few runs|same|few"
    figures = text.partition("Why:")[0]
    shown = sum(
        len(re.findall(rf"{TIMES}\d\S*(?: \(\S+\))? +(?:{words})\b", line)) for line in figures.splitlines()
    )
    without_ratio = sum(
        difference.judgements[metric.key].ratio is None and both_known(difference, metric)
        for difference in made[name].differences
        for metric in METRICS
    )
    assert shown == wanted - without_ratio


@pytest.mark.parametrize("name", EVERY)
def test_colours_add_nothing_but_colours(made, name):
    block = view_of(made[name], "all")
    colored = draw(block, 80, colors="standard")
    assert ESCAPE.search(colored)
    assert ESCAPE.sub("", colored) == draw(block, 80)


def test_hostile_names_stay_text(made):
    text = draw(view_of(made["hostile"], "all"), 80)
    comment = markdown(made["hostile"])
    for evil in EVIL:
        assert evil not in text
        assert evil not in comment
    outside = re.sub(r"`[^`\n]*`", "", comment)
    assert "@everyone" not in outside
    assert "<img" not in outside
    rows = [line for line in comment.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_code_spans():
    assert code("a`b|c") == "`a'b\\|c`"
    assert code(" \n ") == ""
    assert len(code("x" * 10_000)) < 500


def test_caveats_come_before_any_figure(made):
    text = draw(view_of(made["odd"], None), 80)
    assert text.index("! mixed") < text.index("returned ")


def test_the_next_view_is_one_that_was_not_shown(made):
    for comparison in made.values():
        for shown in (None, *VIEWS, ALL):
            assert next_view(comparison, shown) in VIEWS
            assert next_view(comparison, shown) != shown
    assert next_view(made["five"], None) in ("memory", "tensors")


def test_phases_are_told_apart_without_colours(made):
    text = draw(view_of(made["slow-init"], "phases"), 80)
    bars = [line for line in text.splitlines() if line.startswith(("slow", "fast"))]
    assert "instantiate" in bars[0]
    assert "weights" in bars[0]
    assert bars[0].count("━") > bars[1].count("━") * 1.8


def _checked():
    traces = {"good.json": load(touch_ms=100), "slow.json": load(1.5, offload=3)}
    limits = [limit("--max-load-time", 4 * 10**9), limit("--max-ready", 10**10), limit("--max-peak", 10**9)]
    checked = [
        budgets.Checked(name, None, check(trace, limits, ["cast", "offload", "meta"]), [])
        for name, trace in traces.items()
    ]
    caveats = compared([("baseline", [load()]), ("new.json", [load(generation="A")])]).caveats
    checked.append(budgets.Checked("new.json", None, check(load(), limits[:1], []), caveats))
    return [
        *checked,
        budgets.Checked("killed.json", "the load ended killed, so there is nothing to check", [], []),
    ]


@pytest.mark.parametrize("width", [80, 140])
def test_budgets(width):
    compare(f"check-{width}", draw(budgets.table(_checked()), width))


def test_budgets_for_github():
    compare(
        "check-github", budgets.markdown(_checked()) + "\n".join(budgets.error_commands(_checked())) + "\n"
    )


@pytest.mark.parametrize("width", [40, 61, 300])
def test_budgets_are_not_wider_than_the_screen(width):
    for line in draw(budgets.table(_checked()), width).splitlines():
        assert cell_len(line) <= width


def test_a_variant_of_one_run_is_its_own_middle():
    trace = load()
    variant = Variant.of("one", [trace])
    assert variant.typical is trace


# -- the winner, and how many runs ----------------------------------------------------------------------


def winner(groups, metric):
    return draw(view_of(compared(groups), "ranking", NAMES[metric]), 100)


def test_a_figure_that_no_run_has_makes_no_winner():
    text = winner([("a", [load()]), ("b", [load(2.0)])], "ready")
    assert "no run has a figure for ready" in text
    assert "--touch or --forward" in text
    assert "succeeded" not in text


def test_what_is_lowest_without_a_verdict_says_how_many_runs_it_takes():
    text = winner([("a", [load()]), ("b", [load(0.5)])], "returned")
    assert "lowest returned: b; 4 more runs of each for a verdict on returned" in text
    assert "best" not in text
    assert "five" not in text


def test_the_best_is_named_by_its_figure():
    assert "best by returned: b" in winner([("a", runs()), ("b", runs(instantiate_ms=500))], "returned")
    same = winner([("a", runs()), ("b", runs())], "returned")
    assert "lowest returned: a; no difference to b that these runs can show" in same


def test_a_comparison_says_one_thing_of_how_many_runs_it_takes():
    text = draw(view_of(compared([("a", [load()]), ("b", [load(0.5)])]), None), 80)
    assert text.count("more run") == 1
    assert "five" not in text


def test_a_load_that_failed_has_no_why(made):
    for text in (draw(view_of(made["odd"], None), 80), markdown(made["odd"])):
        assert "dead: 3 of 3 runs without figures" in text
        assert "Why: dead" not in text.replace("`", "")
        assert "Why: lazy" in text.replace("`", "")


def test_one_tensor_differs_and_two_differ():
    difference = compared([("a", [load(layers=1)]), ("b", [load(layers=1)])]).differences[0]
    assert describe_tensors({"dtype": 1, "tied_to": 1}, difference).startswith(
        "1 differs in dtype; 1 differs in ties"
    )
    assert describe_tensors({"dtype": 2, "only_variant": 1}, difference).startswith(
        "2 differ in dtype; 1 only in b"
    )
