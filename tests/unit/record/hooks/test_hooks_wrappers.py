"""The one builder of span handlers: what it calls, what passes through, and what it leaves open."""

from __future__ import annotations

import pytest

from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by, span_handler
from hftrace.record.recorder import Recorder


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def load(recorder):
    """An open load."""
    return recorder.begin("load", "model")


class Log(SpanObserver):
    """Writes down what it is asked; fails where it is told to."""

    broken: str = ""
    nothing = False

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.seen = []
        Log.last = self

    def begin(self, call, started):
        self.seen.append(("begin", call.get("number"), started > 0))
        if self.broken == "begin after a span":
            self.recorder.begin("weights", "left open")
            raise ValueError("a bug of ours")
        return None if self.nothing else "token"

    def finish(self, token, call, result):
        self.seen.append(("finish", token, call.get("number"), result))
        if self.broken == "finish":
            self.recorder.begin("weights", "left open")
            raise ValueError("a bug of ours")

    def fail(self, token, call, error):
        self.seen.append(("fail", token, call.get("number"), str(error)))
        if self.broken == "fail":
            raise ValueError("a bug of ours")


class Called:
    def __init__(self, error=None):
        self.arguments = []
        self.error = error

    def __call__(self, *args, **kwargs):
        self.arguments.append((args, kwargs))
        if self.error is not None:
            raise self.error
        return "result"


def function(number, more=None):
    pass


def built(recorder, original, builder=None, **point):
    point = HookPoint("module:function", "weights", **point)
    return (builder or observed_by(Log))(recorder, point, 1, function, original)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(Log, "broken", "")
    monkeypatch.setattr(Log, "nothing", False)


def test_a_call_begins_and_finishes(recorder, load):
    original = Called()
    assert built(recorder, original)(7, more=1) == "result"
    assert original.arguments == [((7,), {"more": 1})]
    assert Log.last.seen == [("begin", 7, True), ("finish", "token", 7, "result")]


def test_an_error_of_the_host_passes_through(recorder, load):
    error = KeyError("the host's own")
    original = Called(error)
    with pytest.raises(KeyError) as caught:
        built(recorder, original)(number=7)
    assert caught.value is error
    assert len(original.arguments) == 1
    assert Log.last.seen[1] == ("fail", "token", 7, '"the host\'s own"')


@pytest.mark.parametrize("broken", ["begin after a span", "finish", "fail"])
@pytest.mark.parametrize("error", [None, KeyError("the host's own")])
def test_an_error_of_ours_is_counted_and_leaves_nothing_open(recorder, load, monkeypatch, broken, error):
    monkeypatch.setattr(Log, "broken", broken)
    original = Called(error)
    handler = built(recorder, original)
    if error is None:
        assert handler(7) == "result"
    else:
        with pytest.raises(KeyError, match="the host's own"):
            handler(7)
    assert len(original.arguments) == 1
    assert recorder.state.stack == [load]
    reached = broken == "begin after a span" or (broken == "finish") == (error is None)
    assert recorder.error_count == reached


def test_nothing_is_recorded_outside_a_load(recorder):
    original = Called()
    assert built(recorder, original)(7) == "result"
    assert Log.last.seen == []
    assert built(recorder, original, observed_by(Log, begins_load=True))(7) == "result"
    assert len(Log.last.seen) == 2
    assert len(original.arguments) == 2


def test_a_call_without_a_token_is_left_alone(recorder, load, monkeypatch):
    monkeypatch.setattr(Log, "nothing", True)
    original = Called()
    assert built(recorder, original)(7) == "result"
    assert Log.last.seen == [("begin", 7, True)]
    assert len(original.arguments) == 1


def test_what_observers_call_is_not_recorded_itself(recorder, load):
    outer = Called()
    handler = built(recorder, outer)
    recorder.state.busy = True
    assert handler(7) == "result"
    recorder.state.busy = False
    assert Log.last.seen == []


def test_a_plain_span_has_the_points_attributes(recorder, load):
    ended = []
    point = {
        "label": lambda call: f"number {call.get('number')}",
        "begin": lambda recorder, call: {"more": call.get("more")},
        "finish": lambda recorder, span, call, result: ended.append(span) or {"result": result},
    }
    assert built(recorder, Called(), span_handler, **point)(7, more=1) == "result"
    (span,) = ended
    assert (span.phase, span.name, span.notes["result"]) == ("weights", "number 7", "result")
    assert recorder.state.stack == [load]


def test_only_the_outermost_of_a_phase(recorder, load):
    names = []

    def inner(*args):
        names.append([span.name for span in recorder.state.stack])

    handler = built(recorder, inner, span_handler, outermost_only=True)
    built(recorder, handler, span_handler, outermost_only=True, label=lambda call: "outer")(7)
    assert names == [["model", "outer"]]
