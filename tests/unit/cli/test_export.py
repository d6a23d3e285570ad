"""``hftrace export``: where files go, and what is refused before anything is read."""

import json

import pytest
from click.testing import CliRunner

import handmade
from hftrace.cli.export import command
from hftrace.cli.show import command as show


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "trace.json"
    handmade.sharded().save(path)
    return path


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments], standalone_mode=False)


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("table", ["tensors", "spans", "files", "requests", "samples"])
def test_a_table_has_every_row_and_column(path, tmp_path, table):
    out = tmp_path / "out.jsonl"
    assert run(path, "--table", table, "-o", out).exception is None
    expected = getattr(handmade.sharded(), table)
    assert rows_of(out.read_text()) == [
        {name: column[row] for name, column in expected.columns.items()} for row in range(len(expected))
    ]


def test_loads_are_those_of_the_summary(path, tmp_path):
    done = run(path, "--table", "loads", "--format", "jsonl")
    assert done.exception is None
    rows = rows_of(done.stdout)
    assert [row["span"] for row in rows] == [load.span for load in handmade.sharded().loads]


def test_what_exists_is_kept_without_force(path, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    assert "--force" in str(run(path, "--table", "spans", "-o", out).exception)
    assert out.read_text() == "mine"
    assert run(path, "--table", "spans", "-o", out, "--force").exception is None
    assert out.read_text() != "mine"


def test_nothing_is_left_of_what_failed(tmp_path):
    out = tmp_path / "out.jsonl"
    assert "there is no trace" in str(run(tmp_path / "none.json", "--table", "spans", "-o", out).exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what to write"),
        (("-o", "x.txt"), "no format is known by the end"),
        (("-o", "x.jsonl"), "--table"),
    ],
)
def test_what_is_not_said_is_asked_for(path, arguments, words):
    assert words in str(run(path, *arguments).exception)


def test_one_trace_a_file(path):
    assert "holds one trace, and 2 were named" in str(
        run(path, path, "--table", "spans", "--format", "jsonl").exception
    )


def test_html_is_a_page_of_one_trace_or_a_comparison(path, tmp_path):
    out = tmp_path / "report.html"
    assert run(path, "-o", out).exception is None
    assert out.read_text("utf-8").startswith("<!doctype html>")
    assert "Comparison of" not in out.read_text("utf-8")
    assert run(path, path, "-o", out, "--force").exception is None
    assert "Comparison of 2 traces" in out.read_text("utf-8")


@pytest.mark.parametrize("there_is_one", [True, False])
def test_show_web_writes_a_page_of_its_own_and_opens_it(path, tmp_path, monkeypatch, there_is_one):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or there_is_one)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = CliRunner().invoke(show, [str(path), "--web"], standalone_mode=False)
    assert done.exception is None
    assert done.stdout == ""
    (page,) = tmp_path.glob("*.html")
    assert opened == [page.as_uri()]
    assert str(page) in done.stderr
    assert ("no browser" in done.stderr) is not there_is_one
    assert page.stat().st_mode & 0o077 == 0
    assert page.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("arguments", [("--json",), ("--view", "tree")])
def test_show_web_is_the_whole_page(path, arguments):
    done = CliRunner().invoke(show, [str(path), "--web", *arguments], standalone_mode=False)
    assert "leave out" in str(done.exception)
