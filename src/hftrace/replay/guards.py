"""On what condition a line of a program imports something: read from its source, of which nothing runs."""

from __future__ import annotations

import io
import os
import re
import tokenize
from functools import lru_cache
from typing import NamedTuple

MAX_SOURCE_BYTES = 4 << 20
"""A larger file of source is not read."""
MAX_TEXT = 100
"""Characters that are kept of a condition."""
MAX_HEADER_LINES = 20
"""Lines that the condition of one ``if`` may have."""
KEPT_FILES = 64
"""Sources that are held at once."""

_IS_THERE = re.compile(
    r"\b(?:is_\w*available|is_\w+_installed|\w*_available|has_\w+|\w*_AVAILABLE|HAS_\w+|find_spec)\b"
)
"""What asks whether a package is there, as transformers, torch, accelerate, scikit-learn and others do."""
_NOT_THERE = re.compile(r"\bnot\s+[\w.]*(?:available|installed|find_spec|has_|HAS_)")
_CAUGHT = re.compile(r"\b(ImportError|ModuleNotFoundError|Exception|BaseException)\b")


class _Header(NamedTuple):
    """The first line of a block of code."""

    row: int
    """From 0."""
    indent: int
    text: str


def guard_of(file: str, line: int) -> str | None:
    """Returns what an import is under, such as ``if is_scipy_available()`` or ``try, except ImportError``.

    Args:
        file: The source.
        line: The line of the import, from 1.

    Returns:
        None where it is under no such thing, or the source cannot be read or is another one now.
    """
    lines = _source(file)
    if not 1 <= line <= len(lines) or _indent(lines[line - 1]) == 0 or "import" not in lines[line - 1]:
        return None
    found = _headers(lines, line - 1)
    for header in found if found is not None else _headers_of_tokens(lines, line - 1):
        if header.text.startswith(("def ", "async def ", "class ")):
            return None  # somebody has called it
        if header.text.startswith(("if ", "elif ")):
            condition = re.sub(r"\s+", " ", header.text.rstrip(":").strip())
            if _IS_THERE.search(condition) and not _NOT_THERE.search(condition):
                return condition[:MAX_TEXT]
        elif header.text.startswith("try"):
            caught = _caught(lines, line, header.indent)
            if caught is not None:
                return f"try, except {caught}"
    return None


@lru_cache(maxsize=KEPT_FILES)
def _source(file: str) -> tuple[str, ...]:
    """Returns the lines of a file of Python; none where it is no such thing."""
    try:
        if not file.endswith(".py") or not os.path.isfile(file) or os.path.getsize(file) > MAX_SOURCE_BYTES:
            return ()
        with open(file, encoding="utf-8", errors="replace") as handle:
            return tuple(handle.read().split("\n"))
    except (OSError, ValueError):
        return ()


def forget_sources() -> None:
    """Lets go of the sources that were read."""
    _source.cache_clear()


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _headers(lines: tuple[str, ...], row: int) -> list[_Header] | None:
    """Returns the headers around a line, the innermost first, up to that of a function.

    None where what stands above the line cannot be told from text in a string.
    """
    found = []
    indent = _indent(lines[row])
    for above in range(row - 1, -1, -1):
        text = lines[above]
        stripped = text.strip()
        if '"""' in text or "'''" in text:
            return None
        if not stripped or stripped.startswith("#") or _indent(text) >= indent:
            continue
        if not re.match(
            r"(if|elif|else|try|except|finally|for|while|with|def|class|async|match|case)\b", stripped
        ):
            return None  # the end of a header of several lines, or of another statement
        indent = _indent(text)
        found.append(_Header(above, indent, _whole(lines, above)))
        if not indent or stripped.startswith(("def ", "async def ", "class ")):
            return found
    return found


def _whole(lines: tuple[str, ...], row: int) -> str:
    """Returns a header that may have several lines."""
    text = lines[row].strip()
    for below in range(row + 1, min(row + MAX_HEADER_LINES, len(lines))):
        if text.count("(") <= text.count(")"):
            break
        text += " " + lines[below].strip()
    return text


def _headers_of_tokens(lines: tuple[str, ...], row: int) -> list[_Header]:
    """Returns the same, and takes longer."""
    blocks: list[_Header] = []
    last = _Header(0, 0, "")
    begun = True
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            if token.type == tokenize.INDENT:
                blocks.append(last)
            elif token.type == tokenize.DEDENT:
                blocks.pop()
            elif token.type == tokenize.NEWLINE:
                begun = True
            elif begun and token.type not in (tokenize.NL, tokenize.COMMENT):
                if token.start[0] - 1 >= row:
                    break
                last = _Header(token.start[0] - 1, token.start[1], _whole(lines, token.start[0] - 1))
                begun = False
    except (tokenize.TokenError, SyntaxError, IndexError):
        return []
    return blocks[::-1]


def _caught(lines: tuple[str, ...], line: int, indent: int) -> str | None:
    """Returns what the ``try`` at an indent around a line catches of a failed import; None for nothing."""
    for below in range(line, len(lines)):
        stripped = lines[below].strip()
        if not stripped or stripped.startswith("#") or _indent(lines[below]) > indent:
            continue
        if not stripped.startswith("except"):
            return None
        text = _whole(lines, below)
        if text.startswith("except:"):
            return "anything"
        caught = _CAUGHT.search(text)
        if caught is not None:
            return caught.group(1)
    return None
