"""Which rows of a table are shown: by the text of a row, and by the values of its columns."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from hftrace.errors import UsageError
from hftrace.render.views.options import ViewOptions

VALUES_NAMED = 8
"""Values of a column that a remark names."""
LONGEST = 40
"""Characters of a column's name that an error shows."""


class Table(Protocol):
    """A table of a trace."""

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Every column by its name."""

    def __len__(self) -> int:
        """Returns how many rows it has."""


def chosen_rows(
    table: Table, options: ViewOptions, texts: Callable[[int], Iterable[str | None]]
) -> Sequence[int]:
    """Returns the rows to show.

    Args:
        table: The table.
        options: What to show of it.
        texts: What a pattern is searched for in, of a row.

    Raises:
        UsageError: A filter is about a column that the table does not have.
    """
    rows: Sequence[int] = range(len(table))
    for name, value in options.where:
        if name not in table.columns:
            # A later hftrace may have others, and a damaged file any.
            known = ", ".join(
                each if len(each) <= LONGEST else f"{each[:LONGEST]}..." for each in table.columns
            )
            raise UsageError(f"--filter {name}={value}: there is no column {name}; there are {known}")
        matches = value_matcher(name, value)
        # A tensor that was made of several files names each of them in a column of its own.
        columns = [
            table.columns[each]
            for each in (name, *(["files"] if name == "file" else ()))
            if each in table.columns
        ]
        rows = [row for row in rows if any(matches(column[row]) for column in columns)]
    wanted = options.matches
    if wanted is None:
        return rows
    return [row for row in rows if any(text and wanted(text) for text in texts(row))]


def value_matcher(name: str, asked: str) -> Callable[[Any], bool]:
    """Returns a function that says whether a value is what was asked for.

    It is asked for as it is printed, or as a glob for all of it; ``null`` is what is not known, a device
    without an index is any of its kind, and a file is known by its last component too.
    """
    glob = re.compile(fnmatch.translate(asked)).match

    def matches(value: Any) -> bool:
        if isinstance(value, (list, tuple, dict)):
            return any(map(matches, value)) if value else asked == "null"
        if value is None:
            return asked == "null"
        if isinstance(value, bool):
            return str(value).lower() == asked.lower()
        text = str(value)
        if text == asked or glob(text):
            return True
        if name == "device":
            return text.partition(":")[0] == asked
        return name in ("file", "files", "path") and bool(glob(text.rpartition("/")[2]))

    return matches


def nothing_chosen(table: Table, options: ViewOptions) -> list[str]:
    """Returns remarks for a table of which nothing was chosen: which values its filtered columns have."""
    remarks = []
    for name, _ in options.where:
        column = table.columns[name]
        if any(isinstance(value, (list, dict)) for value in column):
            continue
        values = sorted({"null" if value is None else str(value) for value in column})
        more = f" and {len(values) - VALUES_NAMED} more" if len(values) > VALUES_NAMED else ""
        remarks.append(f"{name} is one of: {', '.join(values[:VALUES_NAMED])}{more}")
    return remarks
