"""What the page's script reads: JSON that no browser takes for anything else, in columns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any

from hftrace.render.text import clean

_SAFE = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"))
MAX_EXACT = 2**53
"""Integers from here on are not exact in a browser; no time and no size of a real trace is so large."""


def script_json(value: Any) -> str:
    """Returns JSON to stand in a ``<script>`` element.

    ASCII alone, so that no line separator of Unicode is in it, and without the characters that begin and
    end elements and comments: within strings, where they all are, JSON has another way to write them.
    """
    written = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character, safe in _SAFE:
        written = written.replace(character, safe)
    return written


def number(value: Any) -> int | float | None:
    """Returns a number as a browser can hold it; None for what is none, or cannot be drawn."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) and abs(value) < MAX_EXACT else None


def numbers(values: Sequence[Any]) -> list[Any]:
    """Returns a column of numbers as a browser can hold them."""
    if set(map(type, values)) <= {int, NoneType}:
        known = [each for each in values if each is not None]
        if not known or (max(known) < MAX_EXACT and min(known) > -MAX_EXACT):
            return list(values)
    return [number(each) for each in values]


def deltas(values: Iterable[int]) -> list[int]:
    """Returns a column of integers as the differences of each to the one before it, which are shorter."""
    found, before = [], 0
    for value in values:
        found.append(value - before)
        before = value
    return found


def packed(names: Iterable[str]) -> dict[str, list[Any]]:
    """Returns names, each as how much of the one before it it begins with, and the rest.

    Names of tensors come module by module: most of one is what the one before it said.
    """
    same: list[int] = []
    rest: list[str] = []
    before = ""
    for name in names:
        name = clean(name)
        # Of a character beyond the first plane a script would count two.
        at = _same(before, name) if name.isascii() and before.isascii() else 0
        same.append(at)
        rest.append(name[at:])
        before = name
    return {"same": same, "rest": rest}


def _same(before: str, name: str) -> int:
    """Returns with how much of another name a name begins."""
    low, high = 0, min(len(before), len(name))
    while low < high:
        middle = (low + high + 1) // 2
        if name.startswith(before[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


class Words:
    """Texts that many rows share: a column of them is positions in one list."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[Any, int] = {}

    def place(self, value: Any) -> int:
        """Returns where a text is in the list; -1 for None."""
        if value is None:
            return -1
        found = self._places.get(value)
        if found is None:
            found = self._places[value] = len(self.texts)
            self.texts.append(clean(value))
        return found

    def column(self, values: Iterable[Any]) -> list[int]:
        """Returns the places of texts."""
        return [self.place(value) for value in values]
