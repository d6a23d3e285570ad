"""The session around the loads: when it began and ended, and what the caller's own code did in it.

Steps that the caller names, and imports outside of loads, may contain loads,
which stay the outermost ones all the same: so neither is put on the stack of
open spans, and no hook ever sees them. They are written as root spans, and
:mod:`hftrace.replay.nesting` puts into each what ran in it.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from hftrace.record.callers import caller_facts, caller_frame, place
from hftrace.record.failures import failure_notes
from hftrace.record.living import Living
from hftrace.schema import lines
from hftrace.schema.encoding import to_line
from hftrace.schema.redact import redact

if TYPE_CHECKING:
    from hftrace.record.recorder import Recorder

Called = TypeVar("Called", bound=Callable[..., Any])

MAX_NAME = 200
"""Characters that are kept of a step's name."""

LEAST_OWN_NS = 500_000
"""hftrace's own work outside of spans is not told from the caller's where it is shorter."""

recording: Living[Recorder] = Living()
"""The recorders of this process that record now."""


def began(recorder: Recorder, code: CodeType | None = None, **facts: Any) -> None:
    """Writes down that the session begins now: the caller's code runs from here on.

    Args:
        recorder: Who records it.
        code: Of the function that is the session, where it is the call of one.
        facts: What to say instead: ``start_ns`` where it began earlier, ``entered_at``.
    """
    entered_at = None if "start_ns" in facts else _place_of(code)
    recorder.facts("session", {"entered_at": entered_at, "start_ns": time.monotonic_ns(), **facts})


def ended(recorder: Recorder, error: BaseException | None = None, code: CodeType | None = None) -> None:
    """Writes down that the session has ended: nothing of the caller's runs any more.

    Args:
        recorder: Who records it.
        error: The exception that left the block.
        code: Of the function that was the session, where it was the call of one.
    """
    now = time.monotonic_ns()
    frame = caller_frame()
    left_at = _place_of(code)
    raised = error.__traceback__ if error is not None else None
    while raised is not None:
        # Not the line of the with statement, or of the decorator.
        if raised.tb_frame.f_code is code or (code is None and raised.tb_frame is frame):
            left_at = f"{raised.tb_frame.f_code.co_filename}:{raised.tb_lineno}"
            break
        raised = raised.tb_next if code is not None else None
    recorder.facts("session", {"end_ns": now, "left_at": left_at})


def _place_of(code: CodeType | None) -> str | None:
    """Returns where a function stands, as ``file:line``; without one, where the caller's code is now."""
    return place(caller_frame()) if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def write_span(
    recorder: Recorder,
    phase: str,
    name: str,
    times: tuple[int, int],
    status: str,
    attributes: dict[str, Any],
) -> int:
    """Writes a root span that is over, and returns its number; memory at its edges is not known.

    Args:
        recorder: Who records it.
        phase: One of the phases of DESIGN.md.
        name: What the reader sees.
        times: When it began and when it ended.
        status: How it ended.
        attributes: What is known of it.
    """
    span, thread, nothing = next(recorder.span_numbers), recorder.local.buffer.thread, lines.Edge()
    begin = lines.Begin(span, None, phase, name, None, thread, times[0], nothing, attributes)
    recorder.writer.write_soon(to_line(begin))
    recorder.writer.write_soon(to_line(lines.End(span, times[1], nothing, status, {})))
    return span


def looked(recorder: Recorder, since_ns: int) -> None:
    """Writes down that hftrace itself was at work after a call had returned, where that took long.

    Else its time would be taken for the caller's.

    Args:
        recorder: Who records it.
        since_ns: When the call returned.
    """
    now = time.monotonic_ns()
    if now - since_ns >= LEAST_OWN_NS:
        recorder.facts("own", {"thread": recorder.local.buffer.thread, "until_ns": now})


def beside(name: str) -> Callable[[Called], Called]:
    """Makes a function of hftrace's own a step of the recordings that it is no part of.

    A block in a program that is recorded as a whole takes time to begin, and to write its trace. That is
    not the program's own.

    Args:
        name: What the screen calls it there.
    """

    def decorate(function: Called) -> Called:
        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            # Its own does not record yet, or not any more when it returns.
            others, since = list(recording), time.monotonic_ns()
            try:
                return function(*args, **kwargs)
            finally:
                times = since, time.monotonic_ns()
                for recorder in others if times[1] - since >= LEAST_OWN_NS else ():
                    if recorder.active:
                        try:
                            write_span(recorder, "step", name, times, "ok", caller_facts())
                        except Exception as failure:
                            recorder.error("session", failure)

        return cast(Called, called)

    return decorate


class _Begun(NamedTuple):
    """A step in one recording."""

    recorder: Recorder
    span: int


class Step:
    """A part of a session that the caller names: see :func:`step`.

    Args:
        name: What the screen calls it.
        recorders: Gives those that record it, asked each time it begins.
    """

    def __init__(self, name: str, recorders: Callable[[], Iterable[Recorder]]) -> None:
        self.name = name
        self._recorders = recorders
        self._begun: list[list[_Begun]] = []

    def __enter__(self) -> Step:
        self._begun.append([*self._begin()])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        now = time.monotonic_ns()
        for recorder, span in reversed(self._begun.pop()):
            if recorder.active:
                try:
                    _end(recorder, span, now, error)
                except Exception as failure:
                    recorder.error("step", failure)

    def __call__(self, function: Called) -> Called:
        """Makes each call of a function, or of a coroutine function, a step.

        Raises:
            TypeError: It is a generator function: when its step would end is for the caller to say.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"hftrace.step cannot decorate the generator function {function.__qualname__}: "
                f"write 'with hftrace.step({self.name!r}):' inside of it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with Step(self.name, self._recorders):
                    return await function(*args, **kwargs)

            return cast(Called, awaited)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with Step(self.name, self._recorders):
                return function(*args, **kwargs)

        return cast(Called, called)

    def _begin(self) -> Iterator[_Begun]:
        for recorder in self._recorders():
            if recorder.active:
                try:
                    yield _Begun(recorder, _begin(recorder, self.name))
                except Exception as failure:
                    recorder.error("step", failure)


def step(name: str) -> Step:
    """Names a part of what a recording covers: a span of phase ``step`` in each one that is active.

    ::

        with hftrace.trace("out.json"):
            model = AutoModelForCausalLM.from_pretrained("./model")
            with hftrace.step("warm-up"):
                model.generate(**inputs, max_new_tokens=1)

    Where nothing is being recorded it does nothing, so it may stay in the
    program. Steps may lie in one another, and loads in steps. As a decorator
    it makes each call of a function or of a coroutine function a step.

    Args:
        name: What the screen calls it.
    """
    return Step(name, lambda: list(recording))


def step_of(name: str, recorder: Callable[[], Recorder | None]) -> Step:
    """Returns a step of one recording alone; of none while ``recorder`` gives None."""
    return Step(name, lambda: [] if (own := recorder()) is None else [own])


def _begin(recorder: Recorder, name: str) -> int:
    """Writes that a step begins; returns the number of its span."""
    span, thread = next(recorder.span_numbers), recorder.local.buffer.thread
    started, noted = time.monotonic_ns(), caller_facts()
    edge = recorder.edge(own=False)  # a step of a coroutine may end on another thread
    line = lines.Begin(span, None, "step", redact(str(name))[:MAX_NAME], None, thread, started, edge, noted)
    recorder.write(line)
    return span


def _end(recorder: Recorder, span: int, ended_ns: int, error: BaseException | None) -> None:
    status, noted = "ok", {}
    # A generator that is closed has not failed.
    if error is not None and not isinstance(error, GeneratorExit):
        status = "interrupted" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "error"
        noted = failure_notes(error, with_place=False)
    recorder.write(lines.End(span, ended_ns, recorder.edge(own=False), status, noted))
