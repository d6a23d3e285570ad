"""Steps and the bounds of a session: what is written, and that nothing of it reaches the host."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import sys
import threading
import time

import pytest

import hftrace
from hftrace.analysis.time.session import session_bounds
from hftrace.record import session

pytestmark = pytest.mark.once


def here(before=1):
    """Returns ``file:line`` of so many lines before the call."""
    return f"{__file__}:{inspect.currentframe().f_back.f_lineno - before}"


def recording():
    return hftrace.trace(sample_hz=0)


def steps(recorded):
    return {span.name: span for span in recorded.trace.spans if span.phase == "step"}


def test_without_a_recording_a_step_does_nothing():
    assert not session.recording
    with hftrace.step("warm-up") as made:
        assert made.name == "warm-up"
    with pytest.raises(ValueError, match="its own"), hftrace.step("warm-up"):
        raise ValueError("its own")


def test_steps_in_one_another():
    with recording() as recorded:
        with recorded.step("outer"):
            where = here()
            with hftrace.step("inner"):
                time.sleep(0.01)
        with hftrace.step("after"):
            pass
    found = steps(recorded)
    assert found["outer"].attributes["caller"] == where
    assert found["outer"].attributes["caller_function"].endswith("test_steps_in_one_another")
    assert found["inner"].parent == found["outer"].id
    assert found["outer"].parent is found["after"].parent is None
    assert found["inner"].duration_ns >= 10_000_000
    assert found["inner"].rss_anon_bytes is not None or sys.platform != "linux"
    assert {span.status for span in found.values()} == {"ok"}
    assert not recorded.trace.loads


def test_a_step_that_fails():
    class Odd(Exception):
        def __str__(self):
            return "hf_abcdefghijklmnopqrstuvwxyz0123456789"

    with recording() as recorded:
        with pytest.raises(Odd), recorded.step("fails"):
            raise Odd
        with pytest.raises(SystemExit), recorded.step("leaves"):
            sys.exit(3)
    found = steps(recorded)
    assert found["fails"].status == "error"
    assert found["fails"].attributes["error"].startswith("Odd")
    assert "hf_abc" not in found["fails"].attributes["error"]
    assert found["leaves"].status == "interrupted"
    # Both were caught: the session ended well.
    assert recorded.trace.outcome["status"] == "ok"


def test_a_step_as_a_decorator():
    @hftrace.step("called")
    def add(left, right=1):
        """Adds."""
        return left + right

    @hftrace.step("awaited")
    async def wait():
        await asyncio.sleep(0.02)
        return 5

    assert add.__doc__ == "Adds."
    assert inspect.iscoroutinefunction(wait)
    with recording() as recorded:
        assert add(1) + add(2, right=2) == 6
        assert asyncio.run(wait()) == 5
    called = [span for span in recorded.trace.spans if span.name == "called"]
    assert len(called) == 2
    assert steps(recorded)["awaited"].duration_ns >= 20_000_000
    assert add(1) == 2


def test_a_generator_function_is_refused():
    def numbers():
        yield 1

    async def later():
        yield 1

    for function in (numbers, later):
        with pytest.raises(TypeError, match=r"write 'with hftrace\.step"):
            hftrace.step("numbers")(function)


def test_a_step_of_one_recording_alone():
    with recording() as outer, recording() as inner:
        with outer.step("outer's"):
            pass
        with hftrace.step("everyone's"):
            pass
    own = {"hftrace.trace begins", "hftrace.trace ends"}  # of the inner one
    assert set(steps(outer)) == {"outer's", "everyone's", *own}
    assert set(steps(inner)) == {"everyone's"}
    # It has ended: no more than a name.
    with outer.step("too late"):
        pass


def test_a_step_that_outlives_its_recording():
    late = hftrace.step("late")
    with recording() as recorded:
        late.__enter__()
    late.__exit__(None, None, None)
    assert steps(recorded)["late"].status == "interrupted"


def test_steps_of_coroutines_cross():
    async def one():
        with hftrace.step("first"):
            await asyncio.sleep(0.02)

    async def two():
        await asyncio.sleep(0.01)
        with hftrace.step("second"):
            await asyncio.sleep(0.03)

    async def both():
        await asyncio.gather(one(), two())

    with recording() as recorded:
        asyncio.run(both())
    found = steps(recorded)
    assert found["second"].parent is None
    assert found["second"].start_ns < found["first"].end_ns < found["second"].end_ns


def test_steps_of_threads():
    def work():
        with hftrace.step("elsewhere"):
            time.sleep(0.01)

    with recording() as recorded, hftrace.step("here"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    found = steps(recorded)
    assert found["elsewhere"].thread != found["here"].thread
    assert found["elsewhere"].parent is None


def test_an_error_of_ours_stays_ours(monkeypatch):
    def broken():
        raise RuntimeError("ours")

    with recording() as recorded:
        monkeypatch.setattr(session, "caller_facts", broken)
        with hftrace.step("warm-up"):
            value = 5
        monkeypatch.undo()
    assert value == 5
    assert not steps(recorded)
    (error,) = recorded.trace.header["errors"]
    assert (error["hook"], error["message"][:18]) == ("step", "RuntimeError: ours")


def test_the_bounds_of_a_session():
    with recording() as recorded:
        entered = here()
        began = time.monotonic_ns()
        time.sleep(0.02)
        took = time.monotonic_ns() - began
    bounds = session_bounds(recorded.trace)
    assert bounds.known
    assert bounds.entered_at == entered
    assert took <= bounds.wall_ns == recorded.trace.header["wall_ns"] < took + 50_000_000


def test_where_an_exception_left_the_block():
    made = recording()
    with pytest.raises(KeyError), made:  # noqa: PT012 (the line that raises is the question)
        time.sleep(0)
        raise KeyError
    assert session_bounds(made.trace).left_at == here()


def plain():
    raise KeyError


async def coroutine():
    raise KeyError


def generator():
    yield 1
    raise KeyError


async def asynchronous():
    yield 1
    raise KeyError


class Starter:
    async def __call__(self):
        raise KeyError

    @staticmethod
    def static():
        raise KeyError


@functools.wraps(plain)
def wrapped():
    plain()


async def drawn(iterator):
    return [value async for value in iterator]


def run(decorated, body):
    """Calls what is decorated, and runs what it returns to its end."""
    if inspect.isasyncgenfunction(body):
        asyncio.run(drawn(decorated()))
    elif inspect.iscoroutinefunction(body):
        asyncio.run(decorated())
    elif inspect.isgeneratorfunction(body):
        list(decorated())
    else:
        decorated()


@pytest.mark.parametrize(
    ("function", "body"),
    [
        (plain, plain),
        (coroutine, coroutine),
        (generator, generator),
        (asynchronous, asynchronous),
        (Starter(), Starter.__call__),
        (vars(Starter)["static"], Starter.static),
        (functools.partial(plain), plain),
        (wrapped, plain),
    ],
    ids=["plain", "coroutine", "generator", "asynchronous", "object", "static", "partial", "wrapped"],
)
def test_a_session_that_is_a_call_begins_at_the_function(function, body):
    made = recording()
    decorated = made(function)
    if isinstance(decorated, staticmethod):
        decorated = decorated.__func__
    with pytest.raises(KeyError):
        run(decorated, body)
    lines, first = inspect.getsourcelines(body)
    bounds = session_bounds(made.trace)
    assert bounds.entered_at == f"{__file__}:{first}"
    assert bounds.left_at == f"{__file__}:{first + len(lines) - 1}"


def test_a_call_that_returns_is_named_by_its_function():
    recorded = recording()

    @recorded
    def start():
        with hftrace.step("in it"):
            pass

    start()
    bounds = session_bounds(recorded.trace)
    first = inspect.getsourcelines(start)[1]
    assert bounds.entered_at == bounds.left_at == f"{__file__}:{first}"
    assert steps(recorded)["in it"].attributes["caller"] == f"{__file__}:{first + 2}"


def test_a_builtin_has_no_line_of_its_own():
    recorded = recording()
    assert recorded(len)("abc") == 3
    assert session_bounds(recorded.trace).entered_at == here()


def test_an_import_outside_of_loads(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_part.py").write_text("import time\ntime.sleep(0.03)\n")
    (tmp_path / "slow_whole.py").write_text("import time\nimport slow_part\ntime.sleep(0.01)\n")
    (tmp_path / "slow_broken.py").write_text("import time\ntime.sleep(0.02)\nraise ValueError('its own')\n")
    with recording() as recorded:
        importlib.import_module("slow_whole")
        where = here()
        with pytest.raises(ValueError, match=r"^its own$"):
            importlib.import_module("slow_broken")
        for _ in range(20):
            with pytest.raises(ImportError):
                importlib.import_module("no_such_module_anywhere")
    for name in ("slow_whole", "slow_part"):
        del sys.modules[name]
    # Each failing probe is short, and there may be any number of them.
    found = [span for span in recorded.trace.spans if span.phase == "import"]
    assert len([span for span in found if "no_such_module" in span.name]) < 20
    whole, broken = (span for span in found if "no_such_module" not in span.name)
    assert (whole.name, whole.status, whole.parent) == ("import slow_whole", "ok", None)
    assert whole.attributes["caller"] == where
    assert whole.attributes["modules"] == 2
    packages = dict(whole.attributes["packages"])
    assert 30_000_000 <= packages["slow_part"] < whole.duration_ns
    assert packages["slow_whole"] >= 10_000_000
    assert (broken.name, broken.status) == ("import slow_broken", "error")
