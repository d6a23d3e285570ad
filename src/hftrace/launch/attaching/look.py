"""Where a process stands, as it told at several times: since when a thread stands still, and in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hftrace import units
from hftrace.analysis.attached import WORDS

MAX_LINES = 8
"""Frames that are printed; all of them are in the trace."""
LATER = 2
"""Who stands still is told again when it is so many times as long as the last time."""

Stand = Mapping[str, Any]
"""One thread, as :func:`hftrace.record.standing.standing` tells of it."""


def words(stand: Stand) -> str:
    """Returns where a thread stands in one line: the innermost frame, and what it waits for."""
    frames = stand.get("frames") or ["an unknown place"]
    waits = waits_words(stand)
    return f"{frames[0]}" + (f", {waits}" if waits else "")


def waits_words(stand: Stand) -> str:
    """Returns what a thread waits for; nothing where it runs, or that is not known."""
    waits = stand.get("waits")
    if not isinstance(waits, Mapping) or not waits.get("call"):
        return ""
    call, file = waits["call"], waits.get("file")
    return WORDS.get(call) or f"waiting in {call}" + (f" of {file}" if file else "")


def stack_text(stands: Iterable[Stand]) -> str:
    """Returns the stacks of threads as one text, as faulthandler writes them."""
    parts = []
    for stand in stands:
        waits = waits_words(stand)
        head = f"Thread {stand.get('thread')}{f' ({waits})' if waits else ''} (most recent call first):"
        parts.append("\n".join([head, *(f"  {frame}" for frame in stand.get("frames") or ())]))
    return "\n\n".join(parts)


def loading(stands: Iterable[Stand]) -> list[Stand]:
    """Returns the threads that are in a load."""
    return [stand for stand in stands if stand.get("load")]


@dataclass
class Still:
    """A thread that stood at one place each time that it was looked at.

    Args:
        stand: How it stood.
        since_ns: When it was first seen there, by the monotonic clock.
        told_ns: How long it had stood when that was last told; None for never.
    """

    stand: Stand
    since_ns: int
    told_ns: int | None = None


class Standstill:
    """Compares what a process tells of its threads at several times; those in a load count.

    Args:
        least_seconds: So long at one place is worth a word; 0 for none.
    """

    def __init__(self, least_seconds: float) -> None:
        self._least_ns = round(least_seconds * 1e9)
        self._still: dict[Any, Still] = {}

    def look(self, stands: Iterable[Stand], time_ns: int, last_event_ns: int) -> list[Still]:
        """Takes in where the threads stand now; returns those whose standing still is to be told now.

        Args:
            stands: All threads.
            time_ns: When.
            last_event_ns: When the journal had its last event: who stands still while others work waits.
        """
        seen: dict[Any, Still] = {}
        for stand in loading(stands):
            key = (stand.get("native"), stand.get("thread"))
            known = self._still.get(key)
            same = known is not None and known.stand.get("frames") == stand.get("frames")
            still = known if known is not None and same else Still(stand, time_ns)
            if last_event_ns > still.since_ns:
                still = Still(stand, last_event_ns)
            still.stand = stand
            seen[key] = still
        self._still = seen
        return [still for still in seen.values() if self._is_due(still, time_ns)]

    def longest(self, time_ns: int) -> Still | None:
        """Returns who has stood still for the longest time, if it was worth a word."""
        worth = [still for still in self._still.values() if self._is_long(still, time_ns)]
        return min(worth, key=lambda still: still.since_ns, default=None)

    def all(self) -> list[Stand]:
        """Returns the threads in loads as they stood last."""
        return [still.stand for still in self._still.values()]

    def _is_long(self, still: Still, time_ns: int) -> bool:
        return bool(self._least_ns) and time_ns - still.since_ns >= self._least_ns

    def _is_due(self, still: Still, time_ns: int) -> bool:
        stood = time_ns - still.since_ns
        if not self._is_long(still, time_ns) or (still.told_ns is not None and stood < LATER * still.told_ns):
            return False
        still.told_ns = stood
        return True


def still_words(still: Still, time_ns: int) -> str:
    """Returns that a thread stands still, for how long, and where."""
    stood = units.duration(time_ns - still.since_ns)
    return f"{still.stand.get('thread')} has stood still for {stood} at {words(still.stand)}"


def beginning(answer: Mapping[str, Any], pid: int) -> Iterator[str]:
    """Yields what is said when a process has let somebody attach.

    Args:
        answer: Its answer.
        pid: Its number.
    """
    loader = answer.get("transformers")
    versions = f"Python {answer.get('python')}" + (f", transformers {loader}" if loader else "")
    yield f"attached to process {pid} ({versions})"
    stands = answer.get("standing") or []
    for stand in loading(stands):
        load = stand["load"]
        caller = f", called at {load.get('caller')}" if load.get("caller") else ""
        yield (
            f"a load is under way already: {load.get('function')}{caller}, on {stand.get('thread')}; "
            "of it nothing is recorded but where it stands"
        )
        waits = waits_words(stand)
        yield f"{stand.get('thread')} stands here{f', {waits}' if waits else ''} (most recent call first):"
        frames = stand.get("frames") or []
        yield from (f"  {frame}" for frame in frames[:MAX_LINES])
        if len(frames) > MAX_LINES:
            yield f"  ... {len(frames) - MAX_LINES} more"
    if not loading(stands):
        main = next((stand for stand in stands if stand.get("main")), None)
        yield "no load is under way" + (f"; {main.get('thread')} stands at {words(main)}" if main else "")
