"""What a stream can show: how wide it is, whether it takes colours, and a view as text for it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from hftrace.render.text import Block

COLORS = ("auto", "always", "never")
PIPED_WIDTH = 80
MIN_WIDTH = 40


def wants_color(color: str, stream: TextIO) -> bool:
    """Says whether escape sequences may be written to ``stream``."""
    if color != "auto":
        return color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return _is_terminal(stream) and os.environ.get("TERM") != "dumb"


def _is_terminal(stream: TextIO) -> bool:
    # A program may have put anything in the place of its stdout that can be written to.
    isatty = getattr(stream, "isatty", None)
    return bool(isatty is not None and isatty())


def output_width(width: int | None, stream: TextIO) -> int:
    """Returns the width to draw in: as asked, COLUMNS, the terminal's own, or 80."""
    if width is not None:
        return max(MIN_WIDTH, width)
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and 0 < int(columns) <= 1000:
        return max(MIN_WIDTH, int(columns))
    try:
        # A notebook's stdout has the number of the terminal that its server was started from.
        if _is_terminal(stream):
            return max(MIN_WIDTH, os.get_terminal_size(stream.fileno()).columns)
    except (OSError, ValueError, AttributeError):
        pass
    return PIPED_WIDTH


def text_for(blocks: Iterable[Block], stream: TextIO, color: str, width: int | None) -> Iterable[str]:
    """Yields views as text for a stream, with an empty line between them; nothing is written."""
    cells = output_width(width, stream)
    ascii_only = not (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
    colored = wants_color(color, stream)
    for number, block in enumerate(blocks):
        yield "\n" * (number > 0) + block.text(cells, ascii_only, colored)
