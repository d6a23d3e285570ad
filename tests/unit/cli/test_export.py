"""``hftrace export``: where files go, and what is refused before anything is read."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner

import handmade
from hftrace.cli.export import command
from hftrace.export import FORMATS
from hftrace.export.table import IDENTITY


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
    assert [
        {name: value for name, value in row.items() if name not in IDENTITY}
        for row in rows_of(out.read_text())
    ] == [{name: column[row] for name, column in expected.columns.items()} for row in range(len(expected))]


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


def test_several_traces_in_one_table(path, tmp_path):
    other = tmp_path / "other.json"
    handmade.lazy().save(other)
    done = run(path, other, "--table", "files", "--format", "jsonl")
    assert done.exception is None
    counts = Counter(row["trace"] for row in rows_of(done.stdout))
    assert counts == {str(path): len(handmade.sharded().files), str(other): len(handmade.lazy().files)}


def test_a_trace_that_cannot_be_read_leaves_no_file(path, tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    before = sorted(tmp_path.iterdir())
    assert "bad.json" in str(
        run(path, tmp_path / "bad.json", "--table", "spans", "-o", tmp_path / "x.csv").exception
    )
    assert sorted(tmp_path.iterdir()) == before


def test_one_trace_a_file(path, monkeypatch):
    monkeypatch.setitem(FORMATS, "jsonl", FORMATS["jsonl"]._replace(takes_many=False))
    assert "holds one trace, and 2 were named" in str(
        run(path, path, "--table", "spans", "--format", "jsonl").exception
    )
