"""What rules are written with: lists of words, and patterns that are compiled when they are first used."""

from __future__ import annotations

import functools
import re


class Lazy:
    """A regular expression that is compiled when it is first used: most programs meet few of them.

    Args:
        text: As :func:`re.compile` takes it.
        flags: The same.
    """

    def __init__(self, text: str, flags: int = 0) -> None:
        self._given = (text, flags)

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """The compiled pattern."""
        return re.compile(*self._given)

    def search(self, text: str) -> re.Match[str] | None:
        """Searches a text for it."""
        return self.pattern.search(text)


def listed(text: str) -> tuple[str, ...]:
    """Returns the words of a text."""
    return tuple(text.split())
