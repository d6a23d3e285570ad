"""Tables: columns that fit themselves to the screen, a first one that takes the rest of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hftrace import units
from hftrace.render.apart import shorten_apart
from hftrace.render.text import (
    DIM,
    PLAIN,
    Block,
    Line,
    fit,
    heading,
    notes,
    width_of,
)

LIMIT = 200
"""Rows of a table, unless --limit says otherwise."""
MIN_FLEXIBLE = 12
"""Columns are dropped before the first one becomes narrower than this many cells."""


@dataclass(frozen=True)
class Column:
    """A column of a table; at most ``most`` cells wide, and dropped first where ``rank`` is high.

    ``least`` is for the first one: others are dropped before it becomes narrower.
    """

    title: str
    right: bool = False
    most: int = 40
    rank: int = 0
    least: int = 0


@dataclass(frozen=True)
class Row:
    """A row: one text per column, and the style of its first column."""

    cells: Sequence[str]
    style: str = PLAIN


def table(
    title: str, note: str, columns: Sequence[Column], rows: Sequence[Row], remarks: Sequence[str] = ()
) -> Block:
    """Returns a table whose first column takes the room that the others leave."""
    return Block(lambda width: _table(title, note, columns, rows, remarks, width))


def _table(
    title: str, note: str, columns: Sequence[Column], rows: Sequence[Row], remarks: Sequence[str], width: int
) -> Iterable[Line]:
    yield heading(title, width, note)
    if rows:
        shown, dropped, widths = _widths(columns, rows, width)
        yield [
            (
                "  ".join(
                    fit(columns[at].title, widths[at], "right" if columns[at].right else "left")
                    for at in shown
                ),
                DIM,
            )
        ]
        # The first column says what a row is of: two rows never look like one.
        names = shorten_apart([row.cells[0] for row in rows], widths[0])
        for row, name in zip(rows, names, strict=True):
            line: Line = []
            for at in shown:
                text = name if at == 0 else row.cells[at]
                text = fit(text, widths[at], "right" if columns[at].right else "left")
                line.append((text if not line else "  " + text, row.style if at == 0 else _other(row.style)))
            yield line
        if dropped:
            missing = ", ".join(columns[at].title for at in sorted(dropped))
            remarks = [*remarks, f"no room for: {missing} (--width {width + 60}, or --json)"]
    else:
        yield [("no rows", DIM)]
    yield from notes(remarks, width)


def _other(style: str) -> str:
    return DIM if style == DIM else PLAIN


def _widths(
    columns: Sequence[Column], rows: Sequence[Row], width: int
) -> tuple[list[int], list[int], dict[int, int]]:
    """Returns the columns that fit, those that do not, and the width of each; the first one is flexible."""
    wanted = {
        at: min(column.most, max([width_of(column.title), *(width_of(row.cells[at]) for row in rows)]))
        for at, column in enumerate(columns)
    }
    # A column without a single value says nothing.
    shown = [
        at
        for at in range(len(columns))
        if at == 0 or any(row.cells[at] not in ("", units.UNKNOWN) for row in rows)
    ]
    dropped: list[int] = []
    first = max(width_of(row.cells[0]) for row in rows)

    def room() -> int:
        return width - sum(wanted[at] + 2 for at in shown[1:])

    while len(shown) > 1 and room() < min(first, max(MIN_FLEXIBLE, width // 3, columns[0].least)):
        least = max(shown[1:], key=lambda at: (columns[at].rank, at))
        shown.remove(least)
        dropped.append(least)
    wanted[0] = max(4, min(room(), max(first, width_of(columns[0].title))))
    return shown, dropped, wanted


def limited(total: int, limit: int | None, what: str) -> tuple[int, list[str]]:
    """Returns how many rows to show, and the remark that names how many are left out."""
    if limit is None or total <= limit:
        return total, []
    return limit, [f"+ {units.count(total - limit, f'more {what}')}: --limit 0 shows all"]


def known(value: object) -> str:
    """Returns a value as text; ``-`` where it is not known."""
    return units.UNKNOWN if value is None else str(value)
