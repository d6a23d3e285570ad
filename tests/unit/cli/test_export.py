"""``hftrace export``: where files go, and what is refused before anything is read."""

import gzip
import json
from collections import Counter

import pytest
from click.testing import CliRunner

import handmade
from hftrace.cli.export import command
from hftrace.cli.show import command as show
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


def test_a_page_compares_groups_of_runs(tmp_path):
    for name in ("slow-1", "slow-2", "fast-1", "fast-2"):
        handmade.sharded().save(tmp_path / f"{name}.json")
    slow = f"slow={tmp_path / 'slow-1.json'},{tmp_path / 'slow-2.json'}"
    fast = f"fast={tmp_path / 'fast-*.json'}"
    out = tmp_path / "out.html"
    assert run(slow, fast, "-o", out).exception is None
    assert "slow 2 runs, fast 2 runs; baseline slow" in out.read_text()
    assert run(slow, tmp_path / "fast-1.json", "-o", out, "--force").exception is None
    assert "slow 2 runs, fast-1 1 run; baseline slow" in out.read_text()
    assert "group of runs, which a page compares" in str(
        run(slow, fast, "-o", tmp_path / "out.prom").exception
    )
    assert "needs two groups" in str(run(slow, "-o", out, "--force").exception)
    assert "no file matches" in str(run(f"x={tmp_path}/none-*.json", slow, "-o", out, "--force").exception)


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


def test_json_is_a_timeline_and_packed_where_the_name_says_so(path, tmp_path):
    out, packed = tmp_path / "out.json", tmp_path / "out.json.gz"
    assert run(path, "-o", out).exception is None
    assert run(path, "-o", packed).exception is None
    assert gzip.decompress(packed.read_bytes()) == out.read_bytes()
    spans = [
        event for event in json.loads(out.read_text())["traceEvents"] if "parent" in event.get("args", ())
    ]
    assert len(spans) == sum(span.parent is not None for span in handmade.sharded().spans)
    done = run(path, "--format", "chrome")
    assert done.stdout_bytes == out.read_bytes()


def test_a_timeline_may_hold_several_traces(path, tmp_path):
    other = tmp_path / "other.json"
    handmade.killed().save(other)
    out = tmp_path / "both.json"
    assert run(path, other, "-o", out).exception is None
    document = json.loads(out.read_text())
    names = {event["args"]["name"] for event in document["traceEvents"] if event["name"] == "process_name"}
    assert names == {f"{each}: hftrace load, process {handmade.PID}" for each in ("trace.json", "other.json")}
    assert set(document["otherData"]) == {"written_by", "trace.json", "other.json"}


def test_traces_whose_files_are_called_alike_are_named_by_their_paths(path, tmp_path):
    other = tmp_path / "folder" / path.name
    other.parent.mkdir()
    handmade.killed().save(other)
    done = run(path, other, "--format", "speedscope")
    prefixes = {each["name"].partition(": ")[0] for each in json.loads(done.stdout)["profiles"]}
    assert prefixes == {str(path), str(other)}


def test_the_trace_itself_is_never_overwritten(path):
    before = path.read_bytes()
    assert "the trace itself" in str(run(path, "-o", path, "--force").exception)
    assert path.read_bytes() == before


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
