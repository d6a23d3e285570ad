"""What can still be said where a journal lacks its header, or the beginning of a span."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hftrace.schema import journal, lines
from hftrace.schema.checks import MAX_AMOUNT
from hftrace.schema.events import FIELDS


class Nested(Protocol):
    """A span, as far as it lies in another one."""

    parent: int | None


def is_whole(header: dict[str, Any]) -> bool:
    """Returns whether a header says what nothing can be read without."""
    wall = header.get("wall_clock_ns")
    base, pid, rank = (header.get(name, 0) for name in ("clock_base_ns", "pid", "rank"))
    numbers = [base, pid, rank, *([] if wall is None else [wall])]
    return (
        all(type(each) is int and 0 <= each < MAX_AMOUNT for each in numbers)
        and {"clock_base_ns", "pid"} <= header.keys()
    )


def header_of(path: Path, early: list[lines.Line]) -> dict[str, Any] | None:
    """Returns what stands in for a header that is damaged; None where nothing else says when it was.

    Args:
        path: The journal, whose name has the process and its rank.
        early: Its lines.
    """
    begun = [line.time_ns for line in early if isinstance(line, lines.Begin)]
    name = path.name.removeprefix(journal.JOURNAL_PREFIX).removesuffix(journal.SUFFIX)
    rank, _, pid = name.partition("-")
    if not begun or not (rank.isascii() and rank.isdigit() and pid.isascii() and pid.isdigit()):
        return None
    # What the header said besides, such as how peaks were read, is not known.
    return {"pid": int(pid[:9]), "rank": int(rank[:9]), "clock_base_ns": min(begun), "wall_clock_ns": None}


def earliest_of(line: lines.Line) -> int | None:
    """Returns the earliest time that a line says of what was done; None where it says none."""
    if isinstance(line, (lines.Begin, lines.Assigned)):
        return line.time_ns
    if isinstance(line, lines.Events) and line.items:
        width = FIELDS[line.kind].width
        return min(line.items[width - 2 :: width], default=None)
    return None


def place_orphans(
    spans: Mapping[int, Nested], orphans: Mapping[int, int | None], damage: journal.Damage
) -> None:
    """Where the beginning of a span's parent is lost, puts it into what was open around it.

    Args:
        spans: All of the process, by id.
        orphans: By span whose parent had not begun when it did: what was open around it on its thread.
        damage: Of the journal.
    """
    for orphan, around in orphans.items():
        span = spans[orphan]
        if span.parent in spans:
            if not _lies_in(spans, span.parent, orphan):
                continue
            damage.lines += 1  # it lies in itself
        elif not damage.lines:
            continue
        span.parent = None if _lies_in(spans, around, orphan) else around


def _lies_in(spans: Mapping[int, Nested], inner: int | None, outer: int) -> bool:
    """Whether a span is another one, or lies in it."""
    seen: set[int] = set()
    while inner is not None and inner not in seen:
        if inner == outer:
            return True
        seen.add(inner)
        above = spans.get(inner)
        inner = above.parent if above is not None else None
    return False


def forget_unknown(asked_by: list[int | None], spans: Mapping[int, Any]) -> None:
    """Where the beginning of a span is lost, it is not known what asked.

    Args:
        asked_by: A column of ids of spans, which is changed.
        spans: Those that are known, by id.
    """
    for row, span in enumerate(asked_by):
        if span not in spans:
            asked_by[row] = None
