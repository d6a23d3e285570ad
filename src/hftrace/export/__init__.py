"""Exports of a trace by format. A format is a file with ``write``, and a line here."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, cast

from hftrace.errors import UsageError

if TYPE_CHECKING:
    from hftrace.schema.trace import Trace


class Format(NamedTuple):
    """What the registry says of a format; its module is imported when a trace is written in it."""

    module: str
    suffixes: tuple[str, ...]
    """Ends of file names that choose it: ``.html``."""
    help: str
    """What opens it, in one line."""


FORMATS: dict[str, Format] = {}
"""Each format by its name on the command line."""


class Exporter(Protocol):
    """What the module of a format holds."""

    def write(self, trace: Trace, stream: BinaryIO) -> None:
        """Writes a trace."""


def exporter_for(path: str | os.PathLike[str], name: str | None = None) -> Exporter:
    """Returns what writes a file, by the name of its format or else by its suffix.

    Args:
        path: Where the file goes; ``-`` is stdout, and has no suffix.
        name: The format, where the suffix does not say it.

    Raises:
        UsageError: There is no such format, or no format has this suffix.
    """
    if name is None:
        name = _by_suffix(os.path.basename(os.fspath(path)))
        if name is None:
            raise UsageError(f"no format is known by the end of {os.fspath(path)!r}: {_formats()}")
    elif name not in FORMATS:
        raise UsageError(f"there is no format {name!r}: {_formats()}")
    return cast(Exporter, importlib.import_module(FORMATS[name].module))


def _by_suffix(file_name: str) -> str | None:
    """Returns the format of the longest suffix that fits: ``.json.gz`` before ``.gz``."""
    found = [
        (len(suffix), name)
        for name, each in FORMATS.items()
        for suffix in each.suffixes
        if file_name.lower().endswith(suffix)
    ]
    return max(found)[1] if found else None


def _formats() -> str:
    """Returns what there is, as the end of a sentence."""
    if not FORMATS:
        return "this version exports nothing"
    named = (f"{name} ({', '.join(each.suffixes)})" for name, each in FORMATS.items())
    return f"use one of {', '.join(named)}"
