"""What others can see of a hooked function: its code is sent away, read, compiled, debugged and measured.

Standard library and pytest alone, as test_patching.py; tests/patching/test_compiled.py asks torch.compile.
"""

from __future__ import annotations

import bdb
import builtins
import cProfile
import functools
import inspect
import linecache
import marshal
import pickle
import pstats
import subprocess
import sys
import textwrap
import traceback
import types

import pytest

from hftrace.record import frames, patching
from hftrace.record.patching import patch

pytestmark = pytest.mark.once


def passing(calls):
    """Returns a handler factory that notes each call."""

    def factory(original):
        def call(*args, **kwargs):
            calls.append(args)
            return original(*args, **kwargs)

        return call

    return factory


@pytest.fixture(autouse=True)
def nothing_left():
    names, sources = list(vars(builtins)), list(linecache.cache)
    yield
    assert not patching._sites
    assert list(vars(builtins)) == names
    assert [file for file in linecache.cache if frames.is_own(file) and file not in sources] == []


def hooked(value, *, scale=2):
    """Multiplies."""
    product = value * scale
    assert product is not None
    return product


class Base:
    def __init__(self, value):
        self.value = value


class Child(Base):
    def __init__(self, value, *rest):
        super().__init__(value)
        self.rest = rest, __class__


def copy_of(function, cells=None):
    """Returns a function as one that pickles by value makes it again."""
    code = marshal.loads(marshal.dumps(function.__code__))
    return types.FunctionType(
        code, function.__globals__, None, function.__defaults__, cells or function.__closure__
    )


@pytest.mark.parametrize("hot", [False, True])
def test_code_is_marshalled_and_runs_the_original_where_nothing_is_traced(hot):
    calls = []
    undo = patch(hooked, passing(calls), hot)
    copied, sent = copy_of(hooked), marshal.dumps(hooked.__code__)
    undo()
    copied.__kwdefaults__ = {"scale": 3}
    assert copied(2) == 6
    assert types.FunctionType(marshal.loads(sent), {})(2, scale=5) == 10
    assert copied.__doc__ == hooked.__doc__
    assert calls == []


@pytest.mark.process
def test_a_process_without_hftrace_runs_what_it_was_sent():
    undo = patch(Child.__init__, passing([]))
    code = marshal.dumps(Child.__init__.__code__)
    undo()
    program = f"""
import marshal, sys, types
sys.modules["hftrace"] = None
class Base:
    def __init__(self, value): self.value = value
class Mine(Base): pass
Mine.__init__ = types.FunctionType(marshal.loads({code!r}), globals(), closure=(types.CellType(Mine),))
made = Mine(3, 4)
print(made.value, made.rest == ((4,), Mine))
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("3 True\n", "")


def test_a_copy_in_this_process_has_its_own_cells():
    """It is no call of the hooked function: another class's ``super()`` would not take its instances."""
    calls = []
    undo = patch(Child.__init__, passing(calls))
    other = type("Other", (Base,), {})
    other.__init__ = copy_of(Child.__init__, (types.CellType(other),))
    made = other(3, 4)
    assert (made.value, made.rest) == (3, ((4,), other))
    assert calls == []
    assert Child(1).rest == ((), Child)
    assert len(calls) == 1
    undo()
    assert other(5).rest == ((), other)


@pytest.mark.parametrize("order", ["abc", "cab", "bca"])
def test_free_variables_stay_in_the_order_of_the_original(order):
    values = {"a": 1, "b": 2, "c": 3}
    namespace = {}
    text = "\n".join(
        [
            f"def outer({', '.join(order)}):",
            "    def inner(x):",
            f"        return x, {', '.join(order)}",
            "    return inner",
        ]
    )
    exec(text, namespace)
    function = namespace["outer"](**values)
    expected = function(0)
    undo = patch(function, passing([]))
    copied = copy_of(function)
    assert function(0) == copied(0) == expected
    assert inspect.getclosurevars(function).nonlocals == values
    undo()
    assert copied(0) == expected


def test_an_exception_of_a_copy_has_no_context_of_ours():
    undo = patch(raising, passing([]))
    copied = copy_of(raising)
    undo()
    with pytest.raises(KeyError) as caught:
        copied(1)
    assert caught.value.__context__ is None


def raising(value):
    raise KeyError(value)


def test_nothing_but_plain_values_is_among_the_constants():
    undo = patch(hooked, passing([]))
    constants = hooked.__code__.co_consts
    assert {type(constant) for constant in constants} <= {str, float, types.CodeType, type(None), tuple}
    assert pickle.loads(pickle.dumps([each for each in constants if not isinstance(each, types.CodeType)]))
    undo()


def test_the_same_code_stands_there_each_time():
    """What torch.compile has compiled for one recording holds for the next."""
    undo = patch(hooked, passing([]))
    first = hooked.__code__
    undo()
    undo = patch(hooked, passing([]))
    assert hooked.__code__ is first
    undo()


def test_the_source_is_the_original_s():
    plain = inspect.getsource(hooked), inspect.getsourcelines(Child.__init__), inspect.getmodule(hooked)
    undos = [patch(function, passing([])) for function in (hooked, Child.__init__)]
    found = inspect.getsource(hooked), inspect.getsourcelines(Child.__init__), inspect.getmodule(hooked)
    assert found == plain
    assert inspect.getsource(hooked.__code__) == plain[0]
    linecache.checkcache()
    assert inspect.getsource(hooked) == plain[0]
    for undo in undos:
        undo()
    assert inspect.getsource(hooked) == plain[0]


def test_the_source_is_found_where_somebody_empties_the_cache():
    plain = inspect.getsource(textwrap.dedent)
    undo = patch(textwrap.dedent, passing([]))
    linecache.clearcache()
    found = inspect.getsource(textwrap.dedent)
    undo()
    assert found == plain


def test_the_source_of_what_was_typed_is_found_too():
    """As of a cell of a notebook: it is in linecache and in no file."""
    text = "def typed(value):\n    return value\n"
    for file in ("/tmp/kernel/1.py", "<cell 1>"):
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        namespace = {"__name__": "nosuchmodule"}
        exec(compile(text, file, "exec"), namespace)
        try:
            undo = patch(namespace["typed"], passing([]))
            assert inspect.getsource(namespace["typed"]) == text
            undo()
        finally:
            del linecache.cache[file]


def test_a_traceback_shows_the_line_of_the_def():
    undo = patch(raising, passing([]))
    with pytest.raises(KeyError) as caught:
        raising(1)
    undo()
    shown = traceback.extract_tb(caught.tb)[1]
    assert frames.is_own(shown.filename)
    assert shown.lineno == raising.__code__.co_firstlineno


class Debugger(bdb.Bdb):
    """Notes where it stops."""

    def __init__(self):
        super().__init__()
        self.stops = []

    def user_line(self, frame):
        if self.break_here(frame):
            self.stops.append((frame.f_code.co_filename, frame.f_lineno, dict(frame.f_locals)))
        self.set_continue()


@pytest.mark.parametrize("by", ["line", "function"])
@pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces")
def test_a_debugger_stops_in_the_original(by):
    def stops(traced):
        debugger = Debugger()
        first = hooked.__code__.co_firstlineno
        if by == "line":
            assert debugger.set_break(__file__, first + 2) is None
        else:
            assert debugger.set_break(__file__, first, funcname="hooked") is None
        undo = patch(hooked, passing([])) if traced else None
        try:
            debugger.runcall(lambda: (hooked(1), hooked(2)))
        finally:
            debugger.clear_all_breaks()
            if undo is not None:
                undo()
        return debugger.stops

    plain = stops(False)
    assert len(plain) == 2
    assert stops(True) == plain


@pytest.mark.skipif(sys.gettrace() is not None, reason="something else traces")
def test_the_lines_that_run_are_the_same():
    def lines(traced):
        seen = []

        def local(frame, event, argument):
            if event == "line":
                seen.append(frame.f_lineno)
            return local

        def begin(frame, event, argument):
            return (
                local if frame.f_code.co_filename == __file__ and frame.f_code.co_name == "hooked" else None
            )

        undo = patch(hooked, passing([])) if traced else None
        sys.settrace(begin)
        try:
            hooked(1)
        finally:
            sys.settrace(None)
            if undo is not None:
                undo()
        return seen

    plain = lines(False)
    assert len(plain) == 3
    assert lines(True) == plain


def test_a_profile_names_the_original():
    undo = patch(hooked, passing([]))
    profile = cProfile.Profile()
    profile.runcall(functools.partial(hooked, 1))
    undo()
    assert (__file__, hooked.__code__.co_firstlineno, "hooked") in pstats.Stats(profile).stats
