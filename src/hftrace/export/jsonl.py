"""JSON lines: one table, an object a line; each says which trace it is of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import BinaryIO

from hftrace.export import Wish
from hftrace.export.table import columns_of, identity
from hftrace.schema.trace import Trace


def write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    """Writes the table that was asked for, trace by trace."""
    encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
    for place, trace in enumerate(traces):
        columns = columns_of(trace, wish.table)
        whose = identity(trace, wish.paths[place] if place < len(wish.paths) else "")
        end = f",{encode(whose)[1:]}\n".encode("ascii")
        for values in zip(*columns.values(), strict=True):
            row = encode(dict(zip(columns, values, strict=True)))
            stream.write(row[:-1].encode("ascii") + end)
