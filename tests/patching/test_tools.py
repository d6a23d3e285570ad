"""Tools that a program is looked at with, on hooked functions: debuggers, coverage, stand-ins, processes.

Standard library, pytest, and what of coverage, joblib, cloudpickle and dill is there.
"""

from __future__ import annotations

import bdb
import builtins
import functools
import inspect
import io
import os
import pdb
import sys
import types
from pathlib import Path
from unittest import mock

import pytest

from hftrace.record import patching
from hftrace.record.frames import is_own, transparent
from hftrace.record.patching import patch

pytestmark = pytest.mark.once

HERE = Path(__file__).resolve().parent
EXTRAS = Path(os.environ.get("HFTRACE_ENVIRONMENTS") or HERE.parents[1] / ".venvs").resolve() / "extras"


def passing(original):
    """A handler as tracing makes them: of a module of ours, with the file name of ours."""

    def factory(original):
        def call(*args, **kwargs):
            try:
                result = original(*args, **kwargs)
            except BaseException:
                raise
            return result

        return call

    # Made here: other tests look for codes of ours in what modules hold.
    names = {"__name__": "hftrace.record.hooks.test", "__builtins__": builtins}
    return types.FunctionType(transparent(factory).__code__, names)(original)


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    assert not patching._sites


def hooked(value, *, scale=2):
    """Multiplies."""
    product = value * scale
    product += inner(1)
    return product


def inner(value):
    return value + 1


def main():
    first = hooked(1)
    second = hooked(2)
    return first + second


FIRST = hooked.__code__.co_firstlineno
BY_LINE = f"break {__file__}:{FIRST + 2}"
untraced = pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces")


def session(commands, traced, before=None, skip=None):
    """Returns what a person sees of pdb, who gives it these commands from the first line of ``main``.

    ``before`` is the command that was given before anything was hooked.
    """
    out, typed = io.StringIO(), "\n".join([*commands, *["continue"] * 9, ""])
    debugger = pdb.Pdb(stdin=io.StringIO(typed), stdout=out, nosigint=True, readrc=False, skip=skip)
    debugger.use_rawinput, debugger.prompt = False, ""
    undo = None
    try:
        if before is not None:
            debugger.curframe, debugger.curframe_locals = sys._getframe(), {}
            debugger.onecmd(before)
        if traced:
            undo = patch(hooked, passing)
        debugger.runcall(main)
    finally:
        if undo is not None:
            undo()
        bdb.Breakpoint.clearBreakpoints()
    return out.getvalue()


@untraced
@pytest.mark.parametrize(
    ("before", "commands"),
    [
        (BY_LINE, ["continue", "args", "next", "step", "step", "return", "next"]),
        ("break hooked", ["continue", "args", "step", "step", "return", "continue", "next"]),
        ("tbreak hooked", ["continue", "p value, scale", "until", "return", "next", "next"]),
        (None, [BY_LINE, "continue", "next", "next", "next", "next"]),
        (None, [f"{BY_LINE}, value == 2", "continue", "p value", "display product", "next", "return"]),
        (None, ["next", "next", "next"]),
        (None, ["next", "source hooked", "whatis hooked", "p hooked(3)", "next"]),
    ],
    ids=["line", "function", "once", "line-meanwhile", "condition", "over", "source"],
)
def test_pdb_shows_what_it_shows_untraced(before, commands):
    plain = session(commands, False, before)
    assert "hooked" in plain
    # Since 3.13 pdb stops in whatever frame it comes back to, which may be ours.
    skip = ["hftrace.*"] if sys.version_info >= (3, 13) else None
    assert session(commands, True, before, skip) == plain


@untraced
def test_pdb_s_breakpoint_by_function_set_meanwhile_stops_at_the_def():
    """Its arguments are there; ``next`` and ``return`` run the function, and the caller goes on."""
    for command in ("next", "return"):
        shown = session(["break hooked", "continue", "args", command, "next"], True).splitlines()
        assert f"-> {inspect.getsourcelines(hooked)[0][0].rstrip()}" in shown
        assert shown[shown.index("value = 1") + 1 :][:2] == ["scale = 2", "--Return--"]
        assert shown[shown.index("--Return--") + 1].endswith(f"({FIRST})hooked()->4")
        assert "-> second = hooked(2)" in shown


@untraced
def test_pdb_steps_into_the_original_where_it_is_to_skip_hftrace():
    commands = ["step", "step", "step", "step", "return", "next"]
    shown = session(commands, True, skip=["hftrace.*"])
    assert "<frozen importlib._bootstrap hftrace>" not in shown, shown
    where = [line for line in shown.splitlines() if line.startswith(f"> {__file__}")]
    lines = [f"({FIRST})hooked()", f"({FIRST + 2})hooked()", f"({FIRST + 4})hooked()->4"]
    assert where[1:4] == [f"> {__file__}{line}" for line in lines]


def test_a_wrapper_made_meanwhile_is_one_of_the_original():
    undo = patch(hooked, passing)
    wrapper = functools.wraps(hooked)(lambda *args: hooked(*args))
    partial = functools.partial(hooked, 1)
    seen = inspect.signature(wrapper), inspect.getsource(wrapper), inspect.unwrap(wrapper), wrapper(1)
    undo()
    assert seen == (inspect.signature(wrapper), inspect.getsource(hooked), hooked, 4)
    assert (wrapper(1), partial(), wrapper.__doc__, wrapper.__dict__) == (
        4,
        4,
        "Multiplies.",
        {"__wrapped__": hooked},
    )


class Owner:
    def method(self, value):
        return value


@pytest.mark.parametrize("options", [{}, {"autospec": True}, {"wraps": Owner.method}])
def test_stand_ins_come_and_go_in_any_order(options):
    original, code = Owner.method, Owner.method.__code__
    undo = patch(Owner.method, passing)
    stand_in = mock.patch.object(Owner, "method", **options)
    made = stand_in.start()
    Owner.method(Owner(), 1)
    undo()
    assert Owner.method is made
    stand_in.stop()
    assert (Owner.method, Owner.method.__code__, Owner().method(3)) == (original, code, 3)

    stand_in = mock.patch.object(Owner, "method", **options)
    stand_in.start()
    undo = patch(original, passing)
    stand_in.stop()
    assert (Owner.method, Owner().method(3)) == (original, 3)
    undo()
    assert (Owner.method, Owner.method.__code__, Owner().method(3)) == (original, code, 3)
    assert made.call_count == 1


def test_the_file_of_a_hooked_function_is_said_to_be_ours():
    """What docs/how-it-works.md says a program can see: warnings tell our frames from others by it."""
    plain = inspect.getfile(Owner), inspect.getmodule(hooked)
    undo = patch(hooked, passing)
    seen = inspect.getfile(hooked), inspect.getsourcefile(hooked)
    also = inspect.getfile(Owner), inspect.getmodule(hooked.__code__)
    kept = dict(inspect.modulesbyfile)
    undo()
    assert kept.keys() - inspect.modulesbyfile.keys() == {seen[0]}
    assert seen == (f"/<importlib._bootstrap hftrace>{__file__}",) * 2
    assert is_own(seen[0])
    assert also == plain
    assert inspect.getfile(hooked) == inspect.getsourcefile(hooked) == __file__


MEASURED = """
import json, sys
import coverage
from hftrace.record.patching import patch

def passing(original):
    def call(*args, **kwargs):
        return original(*args, **kwargs)
    return call

def measured(traced, branch, core):
    sys.modules.pop("measured_host", None)
    measuring = coverage.Coverage(
        data_file=None, branch=branch, include=["*/measured_host.py"], config_file=False
    )
    measuring.set_option("run:core", core)
    measuring.start()
    import measured_host as host
    functions = host.hooked, host.Child.__init__, host.one, host.decorated, host.decorated.__wrapped__
    undos = [patch(function, passing) for function in functions] if traced else []
    host.used()
    for undo in undos:
        undo()
    measuring.stop()
    assert [type(each).__name__ for each in measuring._collector.tracers] or core == "sysmon"
    measuring.json_report(outfile="report.json")
    with open("report.json") as file:
        (name, found), = json.load(file)["files"].items()
    assert found["missing_lines"] and len(found["executed_lines"]) > 20, found
    return name, sorted(measuring.get_data().measured_files()), found

for core in ("ctrace", "pytrace", *(("sysmon",) if sys.version_info >= (3, 12) else ())):
    for branch in (False, True):
        if core == "sysmon" and branch and sys.version_info < (3, 14):
            continue  # it measures none
        plain, traced = measured(False, branch, core), measured(True, branch, core)
        assert plain == traced, (core, branch, plain, traced)
print("fine")
"""

HOST = """
import functools

def hooked(value, *, scale=2):
    if value > 100:
        return 0
    product = value * scale
    for _ in range(2):
        product += 1
    return product

class Base:
    def __init__(self, value):
        self.value = value

class Child(Base):
    def __init__(self, value, *rest):
        super().__init__(value)
        if rest:
            self.rest = rest, __class__
        else:
            self.rest = None

def one(value): return value + 1

def decorate(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)
    return inner

@decorate
def decorated(value):
    return [value
            for _ in range(3)]

def used():
    hooked(1)
    Child(1)
    one(2)
    decorated(3)
"""


def test_coverage_is_what_it_is_untraced(run_python, tmp_path):
    if not (EXTRAS / "coverage").is_dir():
        pytest.skip("no coverage: tests/environments/make.py installs it")
    (tmp_path / "measured_host.py").write_text(HOST)
    (tmp_path / "measure.py").write_text(MEASURED)
    done = run_python(tmp_path / "measure.py", env=with_extras())
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_other_processes_get_what_they_get_untraced(run_python):
    done = run_python(HERE / "plain_tools.py", env=with_extras())
    assert (done.stdout, done.stderr) == ("fine\n", "")


def with_extras():
    return {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(EXTRAS)]))}
