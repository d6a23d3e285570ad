"""What a filter asks for, in words: a pattern of names, or the value of a column."""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Callable, Sequence

from hftrace.errors import UsageError
from hftrace.render.views import VIEWS

_COLUMN = re.compile(r"([a-z][a-z_]*)=(.*)", re.S)
"""No name of a tensor or a file has an equals sign after such a word, and each column of a table has."""


def matcher(pattern: str) -> Callable[[str], bool]:
    """Returns a function that says whether a name matches.

    A pattern is a regular expression that is searched for in the name. One
    that begins with ``*`` or ``?`` cannot be that, and is a glob for the whole name.

    Raises:
        UsageError: The pattern is neither.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if pattern[:1] in ("*", "?"):
                return re.compile(fnmatch.translate(pattern)).match  # type: ignore[return-value]
            return re.compile(pattern).search  # type: ignore[return-value]
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--filter {pattern!r} is not a regular expression: {error}") from None


def filters(
    patterns: Sequence[str], view: str | None
) -> tuple[Callable[[str], bool] | None, tuple[tuple[str, str], ...]]:
    """Returns what a name must match, None for any, and the values that columns of a table must have.

    Raises:
        UsageError: A pattern is none, or what is shown has no columns.
    """
    where = tuple((found[1], found[2]) for found in map(_COLUMN.fullmatch, patterns) if found)
    tables = [name for name, entry in VIEWS.items() if {"filter", "limit"} <= set(entry.takes)]
    if where and view not in tables:
        raise UsageError(
            f"--filter {'='.join(where[0])} is about rows of a table: "
            f"add --view {', '.join(tables[:-1])} or {tables[-1]}"
        )
    names = [matcher(pattern) for pattern in patterns if not _COLUMN.fullmatch(pattern)]
    return (lambda name: all(matches(name) for matches in names)) if names else None, where
