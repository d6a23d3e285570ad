"""Calls of a program that are no loads: it generates, runs a pipeline, tokenises.

A load may happen inside of one, and is the outermost load all the same. So
these spans are never on the stack of open spans, as steps are not
(:mod:`hftrace.record.session`). A program may make any number of such calls:
the first ones are written down one by one, the rest is counted.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from typing import Any

from hftrace.record.belongings import of_recorder
from hftrace.record.callers import caller_facts
from hftrace.record.failures import failure_notes
from hftrace.record.frames import transparent
from hftrace.record.hooks.points import Call, HandlerBuilder, HookPoint, parameter_names
from hftrace.record.recorder import Recorder, clock, shielded
from hftrace.record.session import looked
from hftrace.schema import lines
from hftrace.schema.encoding import to_line

MAX_SPANS = 10_000
"""Spans of calls that are written; what a program does beyond that is counted by phase."""
MAX_EDGES = 200
"""Outermost calls at whose edges memory is read."""


class OpenCall:
    """A call that has begun and not ended, on the thread that began it."""

    __slots__ = ("id", "name", "notes", "outermost", "phase", "read", "started")

    def __init__(self, phase: str, name: str, started: int, outermost: bool) -> None:
        self.id: int | None = None
        """Of its span; None where it is only counted."""
        self.phase = phase
        self.name = name
        self.started = started
        self.outermost = outermost
        self.read = False
        """Whether memory was read when it began."""
        self.notes: dict[str, Any] = {}
        """Facts that are known at its end."""


class Calls:
    """The calls of one recording.

    Args:
        recorder: Who records it.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.RLock()  # as the journal's, which says why
        self._written = 0
        self._read = 0
        self._left_out: dict[str, list[int]] = {}
        """By phase: how many outermost calls were only counted, and their time."""

    # -- spans -------------------------------------------------------------------------------------

    def begin(
        self, phase: str, name: str, hook: int | None, started: int, attributes: dict[str, Any] | None = None
    ) -> OpenCall:
        """Begins a span on this thread, inside of the call or the load that is running on it.

        Args:
            phase: One of the phases of DESIGN.md.
            name: What the reader sees.
            hook: The number of the hook point.
            started: When it began.
            attributes: What is known at the start.
        """
        recorder = self._recorder
        state = recorder.state
        parent = self.above()
        call = OpenCall(phase, name, started, not state.calls and not state.stack)
        # Below a call that is only counted nothing is written.
        if not (state.calls and parent is None) and self._take(1):
            call.id = next(recorder.span_numbers)
            known = dict(attributes or {})
            edge = lines.Edge()
            if call.outermost:
                known = {**caller_facts(), **known}
                call.read = self._read < MAX_EDGES
                self._read += 1
            if call.read:
                edge = self._edge()
            thread = recorder.local.buffer.thread
            line = lines.Begin(call.id, parent, phase, name, hook, thread, started, edge, known)
            if call.outermost:
                recorder.write(line)
            else:
                recorder.writer.write_soon(to_line(line))
        state.calls.append(call)
        return call

    def end(self, call: OpenCall, ended: int, status: str = "ok") -> None:
        """Ends a span, and those that were left open in it.

        Args:
            call: The call.
            ended: When it ended.
            status: How.
        """
        recorder = self._recorder
        calls = recorder.state.calls
        own = call in calls
        if own:
            del calls[calls.index(call) :]
        if call.id is None:
            if call.outermost:
                self._count(call.phase, ended - call.started)
            return
        edge = self._edge(own=own) if call.read else lines.Edge()
        line = lines.End(call.id, ended, edge, status, call.notes)
        recorder.writer.write_soon(to_line(line))

    def part(
        self,
        parent: int | None,
        phase: str,
        name: str,
        times: tuple[int, int],
        notes: dict[str, Any],
        hook: int | None = None,
    ) -> None:
        """Writes a span that is over.

        Args:
            parent: The span that it is a part of; None for an outermost call.
            phase: One of the phases of DESIGN.md.
            name: What the reader sees.
            times: When it began and when it ended.
            notes: Attributes.
            hook: The number of the hook point.
        """
        recorder = self._recorder
        if not self._take(1):
            if parent is None:
                self._count(phase, times[1] - times[0])
            return
        known = notes if parent is not None else {**caller_facts(), **notes}
        span, thread, nothing = next(recorder.span_numbers), recorder.local.buffer.thread, lines.Edge()
        begin = lines.Begin(span, parent, phase, name, hook, thread, times[0], nothing, known)
        recorder.writer.write_soon(to_line(begin))
        recorder.writer.write_soon(to_line(lines.End(span, times[1], nothing, "ok", {})))

    def above(self) -> int | None:
        """Returns the span that a call which begins now on this thread is a part of; None for none."""
        state = self._recorder.state
        if state.stack:
            return state.stack[-1].id
        call: OpenCall | None = state.calls[-1] if state.calls else None
        return call.id if call is not None else None

    def _edge(self, *, own: bool = True) -> lines.Edge:
        """Reads the memory of the process, and the clocks of the thread where they are the call's own.

        Not the devices': to have a peak of theirs it has to be set back, and a program
        may well ask for its own around this very call.
        """
        return lines.Edge() if self._recorder.abandoned else self._recorder.edges.host(own=own)

    # -- what is only counted ----------------------------------------------------------------------

    def _take(self, count: int) -> bool:
        with self._lock:
            if self._written + count > MAX_SPANS:
                return False
            self._written += count
            return True

    def _count(self, phase: str, spent: int) -> None:
        with self._lock:
            counted = self._left_out.setdefault(phase, [0, 0])
            counted[0] += 1
            counted[1] += spent

    def close(self) -> None:
        """Writes down what was only counted."""
        if self._left_out:
            counted = {
                phase: {"calls": calls, "duration_ns": spent}
                for phase, (calls, spent) in self._left_out.items()
            }
            self._recorder.facts("calls", {"left_out": counted})
        self._recorder.belongings.pop(Calls, None)


def calls_of(recorder: Recorder) -> Calls:
    """Returns the calls of a recording."""
    return of_recorder(recorder, Calls)


class CallObserver:
    """What is recorded of the calls of one hook point: a span from call to return, wherever they are made.

    A table whose calls record something else derives its own. All methods run
    shielded: an error in them is written down, and the host goes on.

    Args:
        recorder: Where the span goes.
        point: The hook point.
        number: The number under which it was announced.
        function: The function that is wrapped.
    """

    def __init__(
        self, recorder: Recorder, point: HookPoint, number: int, function: types.FunctionType
    ) -> None:
        self.recorder = recorder
        self.point = point
        self.number = number
        self.calls = calls_of(recorder)
        self.state = recorder.state

    def begin(self, call: Call, started: int) -> Any:
        """Records that a call begins; returns a token, or None for a call of which nothing is recorded."""
        owner = call.first()
        name = f"{type(owner).__name__}.{self.point.function.rpartition('.')[2]}"
        return self.calls.begin(self.point.phase, name, self.number, started)

    def finish(self, token: Any, call: Call, result: Any, ended: int) -> None:
        """Records that the call returned ``result``."""
        self.calls.end(token, ended)

    def fail(self, token: Any, call: Call, error: BaseException, ended: int) -> None:
        """Records that ``error`` left the call."""
        token.notes.update(failure_notes(error, with_place=False))
        self.calls.end(token, ended, status_of(error))


def status_of(error: BaseException) -> str:
    """Returns how a span ended that an exception left."""
    return "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "error"


def calls_observed_by(observer: type[CallObserver]) -> HandlerBuilder:
    """Returns the builder of handlers whose calls ``observer`` records, inside of loads and outside.

    The handler first asks whether anything is being recorded; it calls the
    original exactly once, with the arguments as they came; its result and its
    exceptions pass through untouched.

    Args:
        observer: Records the calls of one hook point; made once for each.
    """

    @transparent
    def build(
        recorder: Recorder,
        point: HookPoint,
        number: int,
        function: types.FunctionType,
        original: Callable[..., Any],
    ) -> Callable[..., Any]:
        names = parameter_names(function)
        state, earlier = recorder.state, recorder.earlier
        observing = observer(recorder, point, number, function)
        begin, finish, fail = observing.begin, observing.finish, observing.fail

        def call(*args: Any, **kwargs: Any) -> Any:
            idle = not recorder.active or state.busy
            if idle and not (earlier.codes and earlier.is_over(state, recorder.local.buffer)):
                return original(*args, **kwargs)
            started = clock()
            generation, depth = state.generation, len(state.calls)
            arguments = Call(names, args, kwargs)
            try:
                token = shielded(recorder, point.target, begin, arguments, started)
                if token is None:
                    return original(*args, **kwargs)
                try:
                    result = original(*args, **kwargs)
                except BaseException as error:
                    shielded(recorder, point.target, fail, token, arguments, error, clock())
                    raise
                returned = clock()
                shielded(recorder, point.target, finish, token, arguments, result, returned)
                if not depth and not state.stack:
                    shielded(recorder, point.target, looked, recorder, returned)
                return result
            finally:
                # Also where a Ctrl-C comes in the middle of what is ours.
                state.generation = generation
                del state.calls[depth:]

        return call

    return build
