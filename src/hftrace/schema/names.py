"""Finds names in a text and puts others in their places, in a time that the number of names is no part of."""

from __future__ import annotations

import re
from collections.abc import Callable

WIDE, IN_HOME, AS_HOST, ALONE = "wide", "in home", "as host", "alone"
AS_PAIR, AS_PATH = "as pair", "as path"
"""Where a name is one: as a word anywhere, or only where its place says what it is."""
LONGEST = 255
"""No name of a user, a machine or a repository is longer."""

_STARTS = re.compile(r"(?:(?<![^\W_])|(?<=%2F)|(?<=%40)|(?<=%20)|(?<=\\[nrt]))[^\W_]", re.IGNORECASE)
"""Where a word begins: no letter or digit stands before it, but those of an escape."""
_DOTTED = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63}){1,9}")
_HOMES = ("/home/", "/Users/", "\\Users\\")
_QUOTES = ("'", '"', "`")
_BESIDE = ("_", ".", "/", "\\", "-")
"""What joins a word to others, as in the path of a library's module."""


class Names:
    """Names, each with what stands for it, and where it is one."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[str, str]]] = {}
        self._lengths: set[int] = set()
        self._ordered: list[int] = []
        self._begin: set[str] = set()
        self._domains: set[str] = set()

    def add(self, name: str, stand_in: str, where: str) -> None:
        """Adds a name; of the same name in the same place the first one stays."""
        name = lowered(name.strip("_.- "))
        if not name or len(name) > 2 * LONGEST or not name[0].isalnum():
            return
        ways = self._found.setdefault(name, [])
        if where not in (each for _, each in ways):
            ways.append((stand_in, where))
        if len(name) not in self._lengths:
            self._lengths.add(len(name))
            self._ordered = sorted(self._lengths, reverse=True)
        self._begin.add(name[:2])

    def add_domain(self, domain: str) -> None:
        """Adds the domain of machines."""
        self._domains.add(lowered(domain))

    def replaced(self, text: str, host_of: Callable[[str], str]) -> str:
        """Returns a text with stand-ins for the names in it, the longest ones first.

        Args:
            text: The text.
            host_of: Returns what stands for a machine of a domain that was added.
        """
        low = lowered(text)
        domains = {domain for domain in self._domains if domain in low}
        pieces: list[str] = []
        done = 0
        for start in _STARTS.finditer(text):
            at = start.start()
            if at < done:
                continue
            end = _of_domain(low, at, domains) if domains else 0
            if end:
                stand_in = host_of(text[at:end])
            elif low[at : at + 2] in self._begin or low[at : at + 1] in self._begin:
                end, stand_in = self._at(text, low, at)
            if end:
                pieces += [text[done:at], stand_in]
                done = end
        return "".join([*pieces, text[done:]]) if pieces else text

    def _at(self, text: str, low: str, at: int) -> tuple[int, str]:
        """Returns where the longest name ends that begins here, and what stands for it; 0 for none."""
        for length in self._ordered:
            end = at + length
            ways = self._found.get(low[at:end]) if end <= len(low) else None
            if ways is None or (end < len(low) and low[end].isalnum()):
                continue
            for stand_in, where in ways:
                if _is_there(text, at, end, where):
                    return end, stand_in
        return 0, ""


def _of_domain(low: str, at: int, domains: set[str]) -> int:
    """Returns where a machine of a known domain ends that begins here; 0 where there is none."""
    found = _DOTTED.match(low, at)
    parts = found[0].rstrip(".-_").split(".") if found is not None else []
    for last in range(len(parts), 1, -1):
        if any(".".join(parts[first:last]) in domains for first in range(last)):
            return at + len(".".join(parts[:last]))
    return 0


def lowered(text: str) -> str:
    """Returns a text in lower case, of the same length: a few letters have a longer one."""
    low = text.lower()
    if len(low) == len(text):
        return low
    return "".join(each.lower() if len(each.lower()) == 1 else each for each in text)


def _is_there(text: str, at: int, end: int, where: str) -> bool:
    """Returns whether what stands around a name says that it is one."""
    before, after = text[max(0, at - 8) : at], text[end : end + 1]
    if where == WIDE:
        return True
    if where == IN_HOME:
        return before.endswith(_HOMES)
    if where == AS_HOST:
        return (not before or before.endswith(("://", "@"))) and after in ("", ":", "/")
    if where == ALONE:
        whole = at == 0 and end == len(text)
        return whole or before.endswith("models--") or (before[-1:] == after and after in _QUOTES)
    if where == AS_PATH:
        above = before.rstrip("/\\.~")[-1:]
        return not (above.isalnum() or above in ("_", "-"))
    # Of code that is at models/llama/ in a library, neither word is anybody's.
    return before.endswith("--") or not before.endswith(_BESIDE)
