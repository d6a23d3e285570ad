"""What is kept of an exception, and whose end of a block it is."""

from __future__ import annotations

import asyncio
import sys

import pytest

from hftrace.record.failures import describe_error, ending_of, failure_notes, left_span
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.recorder import Recorder


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (None, {"exit_code": 0}),
        (0, {"exit_code": 0}),
        (7, {"exit_code": 7}),
        ("no token=hf_abcdefghijklmnopqrstuvwxyzabcdefgh", {"exit_code": 1}),
    ],
)
def test_sys_exit_is_recorded_and_no_error(code, expected):
    with pytest.raises(SystemExit) as raised:
        sys.exit(code)
    found = ending_of(None, raised.value)
    message = found.pop("exit_message", None)
    assert found == {"status": "ok", **expected}
    if isinstance(code, str):
        assert message.startswith("no token")
        assert "abcdefghijkl" not in message
    else:
        assert message is None


def test_how_a_block_ends():
    assert ending_of(None, None) == {"status": "ok"}
    assert ending_of(None, GeneratorExit()) == {"status": "ok"}
    assert ending_of(None, KeyboardInterrupt())["status"] == "interrupted"
    assert ending_of(None, asyncio.CancelledError())["status"] == "interrupted"
    error = ending_of(None, ValueError("bad"))
    assert (error["status"], error["load"], error["span"]) == ("error", None, None)
    assert (error["error"]["type"], error["error"]["message"]) == ("ValueError", "bad")


def test_an_error_says_where_it_was_raised():
    def inner():
        raise KeyError("x")

    with pytest.raises(KeyError) as raised:
        inner()
    described = describe_error(raised.value)
    assert described["raised_in"] == "inner"
    assert described["raised_at"].rpartition(":")[0].endswith("test_failures.py")
    assert "Traceback (most recent call last)" in described["traceback"]
    assert failure_notes(raised.value, with_place=False) == {"error": "KeyError: 'x'"}
    assert failure_notes(raised.value, with_place=True)["raised_in"] == "inner"


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path)
    made.start()
    yield made
    made.stop()


def hooked(recorder, phase, function):
    """Returns ``function`` as a hook point of this phase is called."""
    from hftrace.record.hooks.wrappers import SpanObserver

    point = HookPoint(f"module:{function.__name__}", phase)
    build = observed_by(SpanObserver, begins_load=True)
    return build(recorder, point, 1, function, function)


def failing(kind=OSError):
    raise kind("no such file")


def caught(action):
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


def test_the_load_that_an_exception_left_is_found_by_its_frames(recorder):
    load = hooked(recorder, "load", failing)
    assert left_span(recorder, caught(load)) == (1, "load")
    assert left_span(recorder, caught(load)) == (2, "load")
    assert left_span(recorder, OSError("no such file")) is None
    assert left_span(object(), caught(load)) is None, "of another recording"


def test_an_exception_that_was_raised_because_of_a_loads_is_its_end_too(recorder):
    load = hooked(recorder, "load", failing)

    def chained():
        try:
            load()
        except OSError as error:
            raise RuntimeError("the service cannot start") from error

    def while_handling():
        try:
            load()
        except OSError:
            raise RuntimeError("the service cannot start")  # noqa: B904

    def unrelated():
        try:
            load()
        except OSError:
            pass
        raise RuntimeError("later")

    assert left_span(recorder, caught(chained)) == (1, "load")
    assert left_span(recorder, caught(while_handling)) == (2, "load")
    assert left_span(recorder, caught(unrelated)) is None


def test_the_outermost_load_goes_before_other_spans(recorder):
    inner = hooked(recorder, "load", failing)

    def calls():
        inner()

    outer = hooked(recorder, "load", calls)
    assert left_span(recorder, caught(outer)) == (1, "load")
    change = hooked(recorder, "surgery", failing)
    assert ending_of(recorder, caught(change))["span"] == 3
    assert ending_of(recorder, caught(change))["load"] is None


def test_the_clock_of_a_load_stops_before_its_exception_is_described(recorder, monkeypatch):
    import hftrace.record.recorder as module

    times = iter(range(0, 10_000, 10))
    monkeypatch.setattr(module, "clock", lambda: next(times))
    described_at = []
    notes = module.failure_notes

    def describing(error, **more):
        described_at.append(next(times))
        return notes(error, **more)

    monkeypatch.setattr(module, "failure_notes", describing)
    written = []
    monkeypatch.setattr(recorder.writer, "write_soon", written.append)
    span = recorder.begin("load", "Model")
    recorder.fail(span, OSError("no such file"))
    ended = written[-1][2]
    assert ended < described_at[0]
