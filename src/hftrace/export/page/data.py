"""What the page's script reads: JSON that no browser takes for anything else, in columns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from hftrace.render.text import clean

_SAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
MAX_EXACT = 2**53
"""Integers from here on are not exact in a browser; no time and no size of a real trace is so large."""


def script_json(value: Any) -> str:
    """Returns JSON to stand in a ``<script>`` element.

    ASCII alone, so that no line separator of Unicode is in it, and without the characters that begin and
    end elements and comments: within strings, where they all are, JSON has another way to write them.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_SAFE)


def number(value: Any) -> int | float | None:
    """Returns a number as a browser can hold it; None for what is none, or cannot be drawn."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) and abs(value) < MAX_EXACT else None


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
