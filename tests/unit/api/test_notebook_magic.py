"""``%%hftrace``: the cell runs in the shell as it would without it. The shell is one that is made up."""

import sys
import types

import pytest

import hftrace
from hftrace.api import notebook
from hftrace.errors import UsageError


class Result:
    def __init__(self, error):
        self.error, self.success = error, error is None

    def raise_error(self):
        if self.error is not None:
            raise self.error


class Shell:
    """What the magic uses of IPython's shell: it shows exceptions itself, and never lets one out."""

    def __init__(self):
        self.names, self.magics = {}, {}

    def register_magic_function(self, function, kind, name):
        self.magics[kind, name] = function

    def run_cell(self, cell):
        try:
            exec(cell, self.names)
        except Exception as error:
            return Result(error)
        return Result(None)

    def push(self, names):
        self.names.update(names)


@pytest.fixture
def shell(monkeypatch):
    made = Shell()
    made.shown = []
    display = types.ModuleType("IPython.display")
    display.display = made.shown.append
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    hftrace.load_ipython_extension(made)
    return made


def test_a_cell_runs_and_its_trace_is_shown_and_kept(shell, tmp_path):
    magic = shell.magics["cell", "hftrace"]
    magic(f"t {tmp_path / 'cell.json'}", "import hftrace\nwith hftrace.step('made'):\n    x = 6 * 7")
    assert shell.names["x"] == 42
    (made,) = shell.shown
    assert shell.names["t"] is made
    assert [span.name for span in made.spans if span.phase == "step"] == ["made"]
    assert made.outcome["status"] == "ok"
    assert hftrace.Trace.open(tmp_path / "cell.json").header["wall_ns"] == made.header["wall_ns"]


def test_a_cell_that_raises_stops_and_its_trace_says_so(shell):
    with pytest.raises(notebook._ShownError) as caught:
        notebook.run(shell, "", "raise ValueError('boom')")
    assert caught.value._render_traceback_() == []
    (made,) = shell.shown
    assert "ValueError" in str(made.outcome)


@pytest.mark.parametrize("line", ["1x", "a b c"])
def test_what_is_asked_wrongly_runs_nothing(shell, line):
    with pytest.raises(UsageError, match="%%hftrace NAME"):
        notebook.run(shell, line, "x = 1")
    assert "x" not in shell.names
    assert shell.shown == []


def test_a_file_that_is_there_is_refused_before_the_cell_runs(shell, tmp_path):
    (tmp_path / "t.json").write_text("mine")
    with pytest.raises(hftrace.HftraceError):
        notebook.run(shell, f"t {tmp_path / 't.json'}", "x = 1")
    assert "x" not in shell.names
