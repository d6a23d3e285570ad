"""A view is one file and one line: its options, its JSON and its place follow from the line."""

import inspect
import json

import pytest

import handmade
from hftrace.render import compare, views
from hftrace.render.registry import View, misplaced, shown_by

MADE_UP = """
from hftrace.render.tables import Column, Row, limited, table
from hftrace.render.text import Block
from hftrace.render.views.options import Rows

def draw(trace, options):
    found = chosen(trace, options)
    shown, remarks = limited(len(found), options.row_limit(50), "made-up row")
    rows = [Row((trace.tensors[row].name,)) for row in found[:shown]]
    return [table("Made up", f"{len(found)} rows", [Column("name", most=200)], rows, remarks)]

def brief(trace, options, explained):
    return [Block(lambda width: [[("made up, in brief", "")]])]

def facts(trace, options):
    return Rows({"made_up": trace.tensors.column("name")}, chosen(trace, options))

def chosen(trace, options):
    names = trace.tensors.column("name")
    return [row for row, name in enumerate(names) if options.matches is None or options.matches(name)]
"""
SHOW = """
import sys
from hftrace.render.registry import View
from hftrace.render.views import VIEWS
VIEWS["made-up"] = View("made_up_view", "Nothing real.", ("filter", "limit"), on_screen={on_screen})
from hftrace.cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture
def show(run_python, tmp_path):
    """Runs ``hftrace show`` of a trace with a view that is a file and a line."""
    (tmp_path / "made_up_view.py").write_text(MADE_UP)
    handmade.sharded().save(tmp_path / "trace.json")

    def run(*arguments, on_screen=False):
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + SHOW.format(on_screen=on_screen)
        return run_python("-c", code, "show", tmp_path / "trace.json", *arguments)

    return run


def test_a_made_up_view_as_text_with_filter_and_limit(show):
    done = show("--view", "made-up", "--filter", "*q_proj.weight", "--limit", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Made up ")
    assert lines[0].endswith(" 22 rows")
    assert len([line for line in lines if line.endswith("q_proj.weight")]) == 3
    assert lines[-1] == "+ 19 more made-up rows: --limit 0 shows all"
    whole = show("--view", "made-up", "--filter", "*q_proj.weight", "--limit", "0").stdout
    assert whole.count("q_proj.weight") == 22


def test_a_made_up_view_as_json_with_filter(show):
    done = show("--view", "made-up", "--filter", "*q_proj.weight", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert len(rows) == 22
    assert rows[0] == {"made_up": "model.layers.0.self_attn.q_proj.weight"}


def test_a_made_up_view_is_in_all_and_on_the_screen(show):
    assert "Made up " in show("--view", "all").stdout
    assert list(json.loads(show("--view", "all", "--json").stdout))[-1] == "made-up"
    assert "made up, in brief" not in show().stdout
    assert "made up, in brief" in show(on_screen=True).stdout


def test_options_that_it_does_not_take_are_an_error(show):
    done = show("--view", "made-up", "--depth", "2")
    assert done.returncode == 2
    assert "--depth does not apply to --view made-up: use it with tree" in done.stderr
    done = show("--view", "memory", "--limit", "2")
    assert done.returncode == 2
    views = "loads, imports, spans, model, tensors, files, requests, samples or made-up"
    assert f"use it with {views}" in done.stderr


def test_the_order_of_all():
    assert shown_by(views.VIEWS, "all") == list(views.VIEWS)
    assert shown_by(views.VIEWS, None) == ["summary", "tree", "timeline"]
    assert shown_by(compare.VIEWS, None) == ["summary", "phases"]
    assert "ranking" not in shown_by(compare.VIEWS, "all")


def test_what_is_misplaced_is_said():
    made = {"a": View("x", "", ("filter",)), "b": View("y", "", on_screen=True, in_all=False)}
    assert misplaced(made, "a", ["filter"]) is None
    assert misplaced(made, "all", ["filter"]) is None
    assert misplaced(made, "b", ["filter"]) == "--filter does not apply to --view b: use it with a"
    assert misplaced(made, None, ["filter"]) == "--filter does not apply to the default screen: use it with a"


@pytest.mark.parametrize("name", views.VIEWS)
def test_every_view_holds_what_its_line_says(name):
    module = views.load(name)
    assert list(inspect.signature(module.draw).parameters) == ["trace", "options"]
    assert list(inspect.signature(module.facts).parameters) == ["trace", "options"]
    assert hasattr(module, "brief") == views.VIEWS[name].on_screen
    assert views.VIEWS[name].help.endswith(".")


@pytest.mark.parametrize("name", compare.VIEWS)
def test_every_view_of_a_comparison_holds_what_its_line_says(name):
    module = compare.load(name)
    assert list(inspect.signature(module.draw).parameters) == ["comparison", "options"]
    assert hasattr(module, "brief") == compare.VIEWS[name].on_screen
    assert compare.VIEWS[name].help.endswith(".")
