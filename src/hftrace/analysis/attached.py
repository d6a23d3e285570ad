"""Loads that had begun when somebody attached to their process: the little that is known of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.values import text
from hftrace.schema.trace import Trace

MAX_LOADS = 32
"""A process has so many threads that load at once, and not more."""


WORDS = {"futex": "waiting for a lock", "nanosleep": "asleep", "clock_nanosleep": "asleep"}
"""What calls of the kernel mean that are about no file."""


class UnderWay(NamedTuple):
    """A load that was under way before the recording began.

    Args:
        function: What loads.
        thread: On which thread.
        caller: Where in the caller's code, as ``file:line``.
        at: The innermost frame, as it stood when somebody attached.
        waits: What it waited for, in words; None where it ran, or that is not known.
        ended: Whether it was over when the recording ended; None where that is not known.
    """

    function: str
    thread: str
    caller: str | None
    at: str | None
    waits: str | None
    ended: bool | None


@once
def under_way(trace: Trace) -> tuple[UnderWay, ...]:
    """Returns the loads that had begun before the recording, of which there are no rows and no times."""
    facts = trace.header.get("attached")
    facts = facts if isinstance(facts, dict) else {}
    said = facts.get("still_under_way")
    still = None if said is None else [(each.get("thread"), each.get("caller")) for each in _rows(said)]
    return tuple(
        UnderWay(
            text(each.get("function")) or "a load",
            text(each.get("thread")) or "an unknown thread",
            text(each.get("caller")),
            (text(each.get("stack")) or "").partition("\n")[0] or None,
            _waits(each.get("waits")),
            # The same line on the same thread: it may be the next one of a loop, which no one can tell.
            None if still is None else (each.get("thread"), each.get("caller")) not in still,
        )
        for each in _rows(facts.get("under_way"))
    )


def is_attached(trace: Trace) -> bool:
    """Returns whether a trace is of a process that ran already, where what lay before is not known."""
    return isinstance(trace.header.get("attached"), dict)


def _rows(value: Any) -> list[dict[str, Any]]:
    rows = value if isinstance(value, list) else []
    return [each for each in rows[:MAX_LOADS] if isinstance(each, dict)]


def _waits(value: Any) -> str | None:
    call = text(value.get("call")) if isinstance(value, dict) else None
    if call is None:
        return None
    if call in WORDS:
        return WORDS[call]
    file = text(value.get("file"))
    return f"waiting in {call}" + (f" of {file}" if file is not None else "")
