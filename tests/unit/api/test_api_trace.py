"""``hftrace.Trace`` as a program reads it: figures, screens, tables, and one line of text."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest

import hftrace
from hftrace.api.tables import Table
from hftrace.render.screen import as_call
from hftrace.render.views import VIEWS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def trace(sample_trace):
    return hftrace.Trace.open(sample_trace)


def test_the_summary_is_what_the_command_prints(run_cli, sample_trace, trace):
    assert trace.summary() == json.loads(run_cli("show", sample_trace, "--json").stdout)


def test_one_load(run_cli):
    path = ROOT / "traces" / "examples" / "llama-D-5.23.0.json"
    said = json.loads(run_cli("show", path, "--load", "1", "--json").stdout)
    assert hftrace.Trace.open(path).summary(load=1) == said
    with pytest.raises(hftrace.HftraceError, match="there is no load 2"):
        hftrace.Trace.open(path).summary(load=2)


@pytest.mark.parametrize("view", [None, "tree", "tensors", "all"])
def test_show_prints_what_the_command_does(run_cli, sample_trace, trace, capsys, view):
    options = ["--view", view] if view else []
    assert trace.show(view, width=80) is None
    assert capsys.readouterr().out == run_cli("show", sample_trace, *options).stdout


def test_show_takes_options(trace, capsys):
    for view in VIEWS:
        trace.show(view)
        assert capsys.readouterr().out
    trace.show("tensors", limit=1)
    short = capsys.readouterr().out
    trace.show("tensors", limit=0)
    assert len(capsys.readouterr().out) > len(short)
    trace.show("tensors", filter=["embed", "kind=parameter"], limit=0)
    assert len(capsys.readouterr().out) < len(short)
    trace.show("tree", depth=1, min_ms=0.1, load=1)
    assert "\x1b" not in capsys.readouterr().out
    trace.show(color="always")
    assert "\x1b[" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"view": "nothing"}, "there is no view 'nothing': summary, "),
        ({"view": "files", "depth": 3}, "depth does not apply to --view files"),
        ({"limit": 3}, "limit does not apply to the default screen"),
        ({"view": "memory", "filter": "x"}, "filter does not apply to --view memory"),
        ({"view": "tensors", "filter": "("}, "is not a regular expression"),
        ({"load": 99}, "there is no load 99"),
        ({"color": "red"}, "there is no color 'red': auto, always, never"),
    ],
)
def test_show_refuses_what_does_not_apply(trace, options, said):
    with pytest.raises(hftrace.HftraceError, match=said):
        trace.show(**options)


class Notebook(io.StringIO):
    """The stdout of a notebook: no terminal, but with the number of the one its server was started from."""

    encoding = "UTF-8"

    def fileno(self):
        raise AssertionError("the terminal of the server says nothing about the notebook")


class Bare:
    """What a program may put in the place of its stdout."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


def test_show_in_a_notebook_and_on_odd_streams(trace, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdout", notebook := Notebook())
    trace.show()
    lines = notebook.getvalue().splitlines()
    assert max(map(len, lines[:-1])) == 80
    assert any("─" in line for line in lines)
    monkeypatch.setattr(sys, "stdout", bare := Bare())
    trace.show()
    assert bare.text == notebook.getvalue()
    monkeypatch.setattr(sys, "stdout", None)
    trace.show()


def test_one_line(trace, sample_trace):
    assert "\n" not in repr(trace)
    assert repr(trace).startswith(f"<Trace {sample_trace}: ")
    hostile = dataclasses.replace(
        trace, request=type(trace.request)({"class": "A\n\x1b[31m"}), path="a\nb.json"
    )
    assert "\n" not in repr(hostile)
    assert "\x1b" not in repr(hostile)
    assert repr(trace.spans) == f"Table(Span, {len(trace.spans)} rows)"


def test_rows_are_what_they_were(trace, tmp_path):
    assert isinstance(trace.tensors, Table)
    assert trace.tensors[0] == next(iter(trace.tensors))
    trace.save(tmp_path / "copy.json")
    copy = hftrace.Trace.open(tmp_path / "copy.json")
    assert list(copy.tensors) == list(trace.tensors)
    assert copy.path == str(tmp_path / "copy.json")


def test_a_column_that_is_not_there_names_those_that_are(trace):
    with pytest.raises(KeyError, match=r"there is no column 'provenanc': name, .*, provenance, "):
        trace.tensors.column("provenanc")


def test_a_trace_in_memory_is_shown_by_its_own_method(trace, capsys):
    dataclasses.replace(trace, path=None).show()
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r'next: trace\.show\("\w+"\)', last)
    assert as_call("hftrace show TRACE --load 3 --view memory") == 'trace.show("memory", load=3)'


def test_pandas_is_asked_for_by_name_where_it_is_missing(trace, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(hftrace.HftraceError, match=r"needs pandas .*: pip install pandas"):
        trace.spans.to_pandas()


FRAMES = """
import json, sys, hftrace, pandas
trace = hftrace.Trace.open(sys.argv[1])
names = "spans", "tensors", "files", "requests", "samples"
frames = {name: getattr(trace, name).to_pandas() for name in names}
tensors = frames["tensors"]
print(json.dumps({
    "dtypes": {name: {each: str(dtype) for each, dtype in frame.dtypes.items()}
               for name, frame in frames.items()},
    "rows": {name: len(frame) for name, frame in frames.items()},
    "bytes": int(tensors.groupby("dtype")["bytes"].sum().sum()),
    "starts": [int(value) for value in frames["spans"]["start_ns"]],
    "parents": [None if pandas.isna(value) else int(value) for value in frames["spans"]["parent"]],
    "keys": tensors["keys"].tolist(),
}))
"""


def test_data_frames_keep_nulls_and_integers(run_python, trace, sample_trace):
    """In a process of its own, with pandas on its path: no other test sees it."""
    folder = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or ROOT / ".venvs") / "extras"
    if importlib.util.find_spec("pandas") is None and not (folder / "pandas").is_dir():
        pytest.skip("no pandas: tests/environments/make.py installs it")
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(folder)]).lstrip(os.pathsep)
    done = run_python("-c", FRAMES, sample_trace, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    dtypes = found["dtypes"]
    assert {name: len(getattr(trace, name)) for name in dtypes} == found["rows"]
    assert dtypes["spans"]["start_ns"] == dtypes["spans"]["parent"] == dtypes["tensors"]["bytes"] == "Int64"
    assert dtypes["tensors"]["verified"] == "boolean"
    assert dtypes["files"]["resident_after"] == "Float64"
    assert dtypes["tensors"]["name"].startswith("str")
    assert dtypes["tensors"]["shape"] == dtypes["spans"]["attributes"] == "object"
    assert found["bytes"] == sum(row.bytes or 0 for row in trace.tensors if row.dtype is not None)
    assert found["starts"] == [span.start_ns for span in trace.spans]
    assert found["parents"] == [span.parent for span in trace.spans]
    assert found["keys"] == [row.keys for row in trace.tensors]
