"""JSON lines: one table of a trace, an object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import BinaryIO

from hftrace.export import Wish
from hftrace.export.table import columns_of
from hftrace.schema.trace import Trace


def write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    """Writes the table that was asked for."""
    (trace,) = traces
    columns = columns_of(trace, wish.table)
    encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
    for values in zip(*columns.values(), strict=True):
        stream.write(encode(dict(zip(columns, values, strict=True))).encode("ascii") + b"\n")
