"""Tracebacks and dumps of stacks without the frames of hftrace: what is left is the program's own."""

from __future__ import annotations

import re

_FRAME = re.compile(r'([\s|]*)File "([^"]+)", line (?:\d+|\?\?\?)')
_OWN = re.compile(
    r"(?:<hftrace |.*importlib\._bootstrap hftrace>).*"
    r"|.*[/\\]hftrace[/\\](?:record|launch|cli|replay|__main__\.py).*"
)
"""Files of our own; what is compiled around a hooked function has a name that is no file's."""


def host_frames(text: str) -> str:
    """Returns a traceback, or faulthandler's dump of stacks, without our own frames.

    Args:
        text: As Python writes it, several in one text, chained or in groups.
    """
    kept: list[str] = []
    cut: str | None = None
    for line in text.split("\n"):
        frame = _FRAME.match(line)
        if frame is not None:
            cut = frame[1] if _OWN.fullmatch(frame[2]) else None
        elif cut is not None and not _belongs(line, cut):
            cut = None
        if cut is None:
            kept.append(line)
    return "\n".join(kept)


def _belongs(line: str, indent: str) -> bool:
    """Returns whether a line goes on with the frame before it: its code, marks, how often it came."""
    return line.startswith((f"{indent}  ", f"{indent}[Previous line repeated"))
