r"""CSV: one table, with a line of names; what spreadsheets, pandas and DuckDB read.

As RFC 4180 has it, in UTF-8, with ``\\n`` at the end of a line. A null is an empty field and an empty text is
``""``; a flag is ``true`` or ``false``; lists and objects are the text of JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from hftrace.export import Wish
from hftrace.export.table import FLAG, INTEGER, NUMBER, TEXT, all_kinds, json_text, parts, plain
from hftrace.schema.trace import Trace

_QUOTED = re.compile(r'[",\r\n]|^\s|\s$|^$')
"""What a field may not hold, or begin or end with, as it is: a reader would take it for something else."""


def write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    """Writes the table that was asked for, trace by trace."""
    stream.write((",".join(all_kinds(wish.table)) + "\n").encode("utf-8"))
    for _, columns in parts(traces, wish):
        fields = [list(map(_WRITERS.get(each.kind, _json), each.values)) for each in columns]
        for row in zip(*fields, strict=True):
            stream.write((",".join(row) + "\n").encode("utf-8"))


def _quoted(value: str) -> str:
    doubled = value.replace('"', '""')
    return f'"{doubled}"' if _QUOTED.search(value) else value


def _text(value: str | None) -> str:
    return "" if value is None else _quoted(plain(value))


def _flag(value: bool | None) -> str:
    return "" if value is None else "true" if value else "false"


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _json(value: Any) -> str:
    return "" if value is None else _quoted(json_text(value))


_WRITERS: dict[str, Callable[[Any], str]] = {TEXT: _text, FLAG: _flag, INTEGER: _number, NUMBER: _number}
