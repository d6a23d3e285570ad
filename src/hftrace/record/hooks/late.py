"""A class that was defined while tracing, whose ``from_pretrained`` is found when it is running already.

Nothing tells that a class has been made: a script's own classes come into being
after tracing has begun, and those of a function when it is called. So the
first call of such a ``from_pretrained`` is seen by what it calls: where a load
begins, the stack is looked through for one. It becomes a load from then on, up to
the last thing that was seen in it, and its span says so (``seen``); from the next
call on it is hooked like any other. No frame is kept, and no local variable read.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.frames import is_own
from hftrace.record.hooks.handed import handed_of
from hftrace.record.hooks.parts import CONTAINER
from hftrace.record.recorder import Recorder, clock
from hftrace.record.second_look import models_of
from hftrace.record.thread_state import OpenSpan
from hftrace.schema import lines
from hftrace.schema.encoding import to_line

SEEN = "seen"
"""Attribute of such a load: ``partly``, from the first call in it that is hooked to the end of the last."""

Finder = Callable[[types.CodeType], "tuple[str, bool] | None"]
"""Hooks what is there now; returns the name of the class that has some code, and whether it is a module."""


class _Running:
    """A ``from_pretrained`` that was found running on this thread."""

    def __init__(self, span: OpenSpan, code: types.CodeType) -> None:
        self.span = span
        self.code = code
        self.last = clock()


class Late:
    """What is found running, of one recording.

    Args:
        recorder: Who records it.
        names: The names of class methods that load.
        finder: Hooks new classes, and names one.
    """

    def __init__(self, recorder: Recorder, names: tuple[str, ...], finder: Finder) -> None:
        self._recorder = recorder
        self._names = frozenset(names)
        self._finder = finder
        self._thread = threading.get_ident()
        self._outside = _depth(_first_of_host(sys._getframe(1)))
        self._running: list[_Running] = []

    def look(self, source: str | None) -> None:
        """Begins a load where one is about to begin, and in the stack there is a call that it is a part of.

        Args:
            source: What is about to be loaded: for want of another name, what the outer one loads too.
        """
        frame = self._enclosing()
        if frame is None:
            return
        code = frame.f_code
        found = self._finder(code)
        if found is None:
            return
        name, is_module = found
        what = "model" if is_module else "other"
        request: dict[str, Any] = {
            "class": name,
            "model": source,
            "what": what,
            "revision": None,
            "keywords": {},
        }
        recorder = self._recorder
        recorder.facts("request", request)
        span = recorder.begin(
            "load", name, None, {"model": source, "what": what, "request": request, SEEN: "partly"}
        )
        span.notes[CONTAINER] = True
        running = _Running(span, code)
        self._running.append(running)
        recorder.state.late = running

    def settle(self) -> None:
        """Ends this thread's load where its call is no longer in the stack."""
        running = self._recorder.state.late
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is running.code:
                return
            frame = frame.f_back
        self._end(running)

    def close(self) -> None:
        """Ends all of them."""
        for running in list(self._running):
            self._end(running)
        self._recorder.belongings.pop(Late, None)

    def _end(self, running: _Running) -> None:
        self._running.remove(running)
        recorder = self._recorder
        if recorder.state.late is running:
            recorder.state.late = None
            recorder.unwind(recorder.state.stack.index(running.span))
        span = running.span
        line = lines.End(span.id, running.last, lines.Edge(), "ok", span.notes)
        recorder.writer.write_soon(to_line(line))
        model = handed_of(recorder).only_module(span.id)
        if model is not None:
            handed_of(recorder).settle(span.id, model, search_since=0)
            models_of(recorder).loaded(span.id, model)

    def _enclosing(self) -> types.FrameType | None:
        """Returns the outermost frame of a loading class method that began in this recording."""
        found = None
        frame: types.FrameType | None = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            if code.co_name in self._names and not is_own(code.co_filename):
                found = frame
            frame = frame.f_back
        if found is not None and threading.get_ident() == self._thread and _depth(found) <= self._outside:
            return None
        return found


def _first_of_host(frame: types.FrameType | None) -> types.FrameType | None:
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "hftrace":
        frame = frame.f_back
    return frame


def _depth(frame: types.FrameType | None) -> int:
    depth = 0
    while frame is not None:
        depth += 1
        frame = frame.f_back
    return depth


def watch(recorder: Recorder, names: tuple[str, ...], finder: Finder) -> None:
    """Begins to look for such calls."""
    recorder.belongings[Late] = Late(recorder, names, finder)


def late_of(recorder: Recorder) -> Any:
    """Returns what looks for such calls; None where nothing does."""
    return recorder.belongings.get(Late)
