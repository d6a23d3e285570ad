"""Reads what a process said beside its journal when that could not be written on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrace.schema import journal
from hftrace.schema.checks import MAX_AMOUNT


@dataclass(frozen=True)
class Stopped:
    """What was kept in memory, and put into the file that was made for it."""

    reason: str
    lines: int
    """So many lines are not in the journal."""
    facts: dict[str, dict[str, Any]]
    """By block: what is known of the session, and of how the process ended."""
    loads: dict[str, int]
    """By status: all outermost loads that ended."""
    ended: dict[int, tuple[int, str]]
    """By the span of one that ended shortly before the journal stopped, or after: when, and its status."""


def read(path: Path) -> Stopped | None:
    """Returns what stands beside a journal; None where it did not stop, or nobody lived to say so.

    Args:
        path: The journal.
    """
    place = path.with_name(path.name.replace(journal.JOURNAL_PREFIX, journal.STOPPED_PREFIX, 1))
    try:
        said = json.loads(place.read_bytes()) if place != path else None
    except (OSError, ValueError, RecursionError):
        return None  # blanks: the process did not live to say anything, or all went well
    if not isinstance(said, dict) or not isinstance(said.get("reason"), str):
        return None
    facts = {}
    for block in ("outcome", "session"):
        values = said.get(block)
        if isinstance(values, dict):
            facts[block] = {name: value for name, value in values.items() if value is not None}
    session = facts.get("session", {})
    for name in ("start_ns", "end_ns"):
        if not _is_amount(session.get(name)):
            session.pop(name, None)
    loads, ended = said.get("loads"), said.get("ended")
    return Stopped(
        said["reason"],
        said["lines"] if _is_amount(said.get("lines")) else 0,
        facts,
        {name: count for name, count in loads.items() if _is_amount(count)}
        if isinstance(loads, dict)
        else {},
        dict(_ended(ended if isinstance(ended, list) else [])),
    )


def _is_amount(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_AMOUNT


def _ended(entries: list[Any]) -> list[tuple[int, tuple[int, str]]]:
    found = []
    for entry in entries:
        if isinstance(entry, list) and len(entry) == 3:
            span, time_ns, status = entry
            if type(span) is int and _is_amount(time_ns) and isinstance(status, str):
                found.append((span, (time_ns, status)))
    return found
