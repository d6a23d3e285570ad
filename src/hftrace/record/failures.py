"""What is kept of an exception of the host, and of how a traced block or program ended.

Of an exception only words are kept: it holds frames, and those hold the model.
"""

from __future__ import annotations

import itertools
import traceback
import types
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from hftrace.record.frames import FRAME_FILE, is_own
from hftrace.schema.frames import host_frames
from hftrace.schema.redact import redact, redact_start
from hftrace.schema.secrets.shapes import LONGEST_SHAPE
from hftrace.schema.secrets.sources import learn_text
from hftrace.schema.secrets.variables import learn_frame
from hftrace.system import limits

if TYPE_CHECKING:
    from hftrace.record.thread_state import ThreadState

MESSAGE = 10_000
TRACEBACK = 50_000
LINE = 2_000
"""Characters that are kept."""
MAX_LINKED = 100
"""Exceptions that are looked at behind one: by which it was raised, or while which was handled."""


MAX_ARGUMENTS = 20
"""Of an exception; one with more, or with a container of more, may take long to put into words."""
_PLAIN = frozenset((str, int, float, bool, bytes, types.NoneType))
_CONTAINERS = (tuple, list, dict, set, frozenset)


def describe_error(error: BaseException) -> dict[str, Any]:
    """Returns type, message and traceback of an exception, without secrets and frames of ours.

    The exception itself stays as it is, with all its frames, for whoever catches it.
    """
    _learn_frames(error)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "message": redact_start(words_of(error), MESSAGE),
        "traceback": redact(host_frames(text))[-TRACEBACK:],
        **_raised(error),
    }


def failure_notes(error: BaseException, *, with_place: bool, with_words: bool = True) -> dict[str, Any]:
    """Returns what a span says of the exception that left it, in few words: it may be caught, and come often.

    Args:
        error: The exception.
        with_place: Say where it was raised, too.
        with_words: Say what it says of itself.
    """
    _learn_frames(error)
    if with_words:
        words = words_of(error)
        said = redact_start(f"{type(error).__name__}: {words}".strip(": "), LINE)
        notes = {"error": said, **limit_facts(error, words)}
    else:
        notes = {"error": type(error).__name__}
    return {**notes, **_raised(error)} if with_place else notes


def words_of(error: BaseException) -> str:
    """Returns what an exception says of itself, as Python prints it; its own code may fail at that."""
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__} str() failed>"


def own_words(error: BaseException) -> str:
    """Returns what a trace says of an error of our own: what it was, and the line that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({Path(frame[0].filename).name}:{frame[0].lineno})" if frame else ""
    return f"{type(error).__name__}: {redact(words_of(error))[:300]}{place}"


def says_at_once(error: BaseException, depth: int = 0) -> bool:
    """Returns whether an exception's words are there at once.

    They may be slow where its class makes them in Python, or of objects that are large, or not Python's own.
    """
    if isinstance(type(error).__str__, types.FunctionType):
        return False
    for argument in _arguments(error)[:MAX_ARGUMENTS]:
        kind = type(argument)
        if kind in _CONTAINERS:
            if len(argument) > MAX_ARGUMENTS:
                return False
        elif issubclass(kind, BaseException):
            if depth >= MAX_ARGUMENTS or not says_at_once(argument, depth + 1):
                return False
        elif kind not in _PLAIN and not issubclass(kind, PurePath):
            return False
    return True


def _arguments(error: BaseException) -> tuple[Any, ...]:
    """Returns what an exception was made with, and runs no code of its class's."""
    arguments: tuple[Any, ...] = BaseException.args.__get__(error)  # type: ignore[attr-defined]
    return arguments


class Told(NamedTuple):
    """What the innermost span has said of an exception that passes through those around it.

    The exception itself is not kept, and another one may come to lie at its address. It is the same where
    the entry that the span's handler has in its traceback is there, too: no span has begun since, and
    without one no other exception gets such an entry.
    """

    identity: tuple[int, int, int]
    entry: int
    """Of the traceback."""
    code: types.CodeType
    """Of the handler."""
    line: int
    notes: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException, notes: dict[str, Any]) -> Told | None:
        """Returns what a handler has said of ``error``, which has just reached it."""
        entry = error.__traceback__
        if entry is None or entry.tb_frame.f_code.co_filename != FRAME_FILE:
            return None
        return cls(_identity(error), id(entry), entry.tb_frame.f_code, entry.tb_lineno, notes)

    def again(self, error: BaseException, *, with_place: bool) -> dict[str, Any] | None:
        """Returns the same for another span that ``error`` leaves; None where it is another exception.

        What its frames hold that is secret is known up to here: only those further out are looked at.
        """
        if self.identity != _identity(error):
            return None
        for further, entry in enumerate(_traceback(error)):
            if id(entry) == self.entry:
                if entry.tb_frame.f_code is not self.code or entry.tb_lineno != self.line:
                    return None
                _learn_frames(error, further)
                return {**self.notes, **(_raised(error) if with_place else {})}
        return None


def told(state: ThreadState, error: BaseException, *, outermost: bool) -> dict[str, Any]:
    """Returns what a span says of an exception that leaves it, which is asked once, by the first span.

    One whose words may be slow to make is asked when the clock of the load has stopped. Where it is
    caught before, the spans that it has left know its type alone.

    Args:
        state: Of the thread.
        error: The exception.
        outermost: No other span of the thread is left.
    """
    before: Told | None = state.told
    again = before.again(error, with_place=outermost) if before is not None else None
    if again is not None:
        return again
    at_once = says_at_once(error)
    notes = failure_notes(error, with_place=outermost, with_words=outermost or at_once)
    state.told = Told.of(error, notes) if at_once and not outermost else None
    return notes


def _identity(error: BaseException) -> tuple[int, int, int]:
    """Returns what is the same of an exception as long as nobody gives it other words."""
    return id(error), id(type(error)), id(_arguments(error))


def _learn_frames(error: BaseException, most: int | None = None) -> None:
    """Learns what is a secret by its name in the functions that an exception has left.

    The first frame of a traceback may still run: to look at its variables would keep them alive.

    Args:
        error: The exception.
        most: Look at so many of its frames, the outermost ones, and at none of the exceptions behind it.
    """
    seen: set[int] = set()
    for each in linked(error) if most is None else (error,):
        if most is None:
            _learn_words(each)
        stop = MAX_LINKED + 1 if most is None else min(most, MAX_LINKED + 1)
        for entry in itertools.islice(_traceback(each), 1, stop):
            frame = entry.tb_frame
            if id(frame) not in seen and not is_own(frame.f_code.co_filename):
                seen.add(id(frame))
                learn_frame(frame)


def _learn_words(error: BaseException) -> None:
    """Learns what looks like a secret in what an exception was made of, and in the notes it was given.

    Its own words come through the gate anyway. Those of a group's members and notes do not: they stand in no
    trace, and what they call a secret may stand elsewhere by its value.
    """
    notes = object.__getattribute__(error, "__dict__").get("__notes__")
    said = [*_arguments(error)[:MAX_ARGUMENTS], *(notes[:MAX_ARGUMENTS] if type(notes) is list else ())]
    if isinstance(error, OSError):
        said += (OSError.filename.__get__(error), OSError.filename2.__get__(error))
    for text in said:
        if type(text) is str:
            learn_text(text[:LONGEST_SHAPE])


def linked(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and those behind it: by which it was raised, or while which was handled."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting and len(seen) < MAX_LINKED:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        group = getattr(each, "exceptions", None)
        waiting += group if isinstance(group, tuple) else ()
        waiting += (each.__cause__, None if each.__suppress_context__ else each.__context__)


MEMORY_WORDS = ("allocat", "out of memory", "file too large")
"""One of them is in what an exception says that a limit of the process may have made."""


def limit_facts(error: BaseException, words: str) -> dict[str, Any]:
    """Returns the limits of the process and what counts against them, where an exception may be about one.

    Args:
        error: The exception.
        words: What it says.
    """
    said = words[:MESSAGE].lower()
    if not isinstance(error, MemoryError) and not any(word in said for word in MEMORY_WORDS):
        return {}
    set_limits = limits.resource_limits()
    return {"resource_limits": set_limits, "address_space": limits.address_space()} if set_limits else {}


def _raised(error: BaseException) -> dict[str, Any]:
    """Returns function and ``file:line`` where an exception was raised; nothing where it does not say."""
    frames = list(_traceback(error))
    found = next((each for each in reversed(frames) if not is_own(each.tb_frame.f_code.co_filename)), None)
    if found is None:
        return {}
    frame, line = found.tb_frame, found.tb_lineno
    return {"raised_in": frame.f_code.co_name, "raised_at": f"{_place(frame)}:{line}"}


def _place(frame: types.FrameType) -> str:
    """Returns a frame's file below its package's parent folder, as the sources of spans are named."""
    depth = str(frame.f_globals.get("__name__", "")).count(".") + 1
    return "/".join(Path(frame.f_code.co_filename).parts[-depth:])


def _traceback(error: BaseException) -> Iterator[types.TracebackType]:
    each = error.__traceback__
    while each is not None:
        yield each
        each = each.tb_next


def ending_of(recorder: object, error: BaseException | None) -> dict[str, Any]:
    """Returns how a traced block or program ended, as facts of the trace's outcome.

    The outcome is the block's: an exception that the program caught belongs to
    its load alone, and one that left the block belongs to both, be it raised in
    a load or outside of any.

    Args:
        recorder: Who recorded the block's loads.
        error: What left the block; None where it ran to its end.

    Returns:
        ``status``. For an exception ``error``, and in ``load`` the outermost load that it left, None
        for one that was raised outside of any; then in ``span`` the outermost other span that it left.
        ``sys.exit`` is no error: ``exit_code``, and ``exit_message`` where it had one.
    """
    if error is None or isinstance(error, GeneratorExit):
        # A generator that is closed has ended as its reader wished.
        return {"status": "ok"}
    if isinstance(error, SystemExit):
        return {"status": "ok", **_exit(error.code)}
    interrupted = isinstance(error, KeyboardInterrupt) or _is_cancelled(error)
    return {
        "status": "interrupted" if interrupted else "error",
        "error": describe_error(error),
        **whose(recorder, error),
    }


def whose(recorder: object, error: BaseException) -> dict[str, Any]:
    """Returns ``load``, and ``span`` where that is None, as :func:`ending_of` says them."""
    span, phase = left_span(recorder, error) or (None, None)
    return {"load": span} if phase == "load" else {"load": None, "span": span}


def _exit(code: object) -> dict[str, Any]:
    """Returns the exit code that ``sys.exit`` asks the interpreter for, as it reads its argument."""
    if code is None or isinstance(code, int):
        return {"exit_code": int(code or 0)}
    return {"exit_code": 1, "exit_message": redact(str(code))[:LINE]}


def _is_cancelled(error: BaseException) -> bool:
    """Returns whether asyncio has cancelled the task; asyncio is not imported for the question."""
    return any(
        kind.__name__ == "CancelledError" and kind.__module__ == "asyncio.exceptions"
        for kind in type(error).__mro__
    )


def left_span(recorder: object, error: BaseException) -> tuple[int, str] | None:
    """Returns number and phase of the outermost span that an exception, or one behind it, has left.

    The frames of our handlers are in its traceback, and know their spans. That
    is surer than to remember the exception: it must not be kept, and another
    one may come to lie at its address. A load goes before another span.
    """
    other: tuple[int, str] | None = None
    for each in linked(error):
        for entry in _traceback(each):
            frame = entry.tb_frame
            if frame.f_code.co_filename != FRAME_FILE or frame.f_locals.get("recorder") is not recorder:
                continue
            span = _outermost(frame.f_locals.get("token"))
            if span is not None and span[1] == "load":
                return span
            other = other or span
    return other


def _outermost(token: Any) -> tuple[int, str] | None:
    """Returns number and phase of the outer one of the spans that a handler's token holds."""
    for span in token if isinstance(token, tuple) else (token,):
        if isinstance(getattr(span, "phase", None), str):
            return int(span.id), span.phase
    return None
