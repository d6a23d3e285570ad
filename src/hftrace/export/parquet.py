"""Parquet: one table with types, of one trace or of thousands; what DuckDB, pandas and Spark read.

Integers are ``int64``, numbers ``double``, flags ``bool``, texts ``string``, lists ``list<int64>`` and
``list<string>``. Objects, whose keys differ from row to row, are the text of JSON. ``trace_start_time`` is a
``timestamp[us, tz=UTC]``. Every file of a table has the same columns in the same order.
"""

from __future__ import annotations

import datetime
import importlib
import io
from collections.abc import Sequence
from typing import Any, BinaryIO

from hftrace._version import __version__
from hftrace.errors import HftraceError
from hftrace.export import Wish
from hftrace.export.table import (
    FLAG,
    INTEGER,
    INTEGERS,
    JSON,
    NUMBER,
    TEXT,
    TEXTS,
    Column,
    all_kinds,
    json_text,
    parts,
    plain,
)
from hftrace.schema.trace import Trace

ROWS = 100_000
"""Of one row group, at least, where there are as many: groups of a trace each would be slow to read."""
TABLES = 64
"""In memory, at most, before they are made one: each takes some 70 KB, however few its rows are."""
START_TIME = "trace_start_time"


def write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    """Writes the table that was asked for, trace by trace.

    Raises:
        HftraceError: pyarrow is not installed, or a number does not fit into 64 bits with a sign.
    """
    arrow, parquet = _pyarrow()
    types = {
        INTEGER: arrow.int64(),
        NUMBER: arrow.float64(),
        FLAG: arrow.bool_(),
        TEXT: arrow.string(),
        JSON: arrow.string(),
        INTEGERS: arrow.list_(arrow.int64()),
        TEXTS: arrow.list_(arrow.string()),
    }
    fields = {name: types[kind] for name, kind in all_kinds(wish.table).items()}
    fields[START_TIME] = arrow.timestamp("us", tz="UTC")
    schema = arrow.schema(list(fields.items()))
    written: list[dict[str, Any]] = []
    # What is written to may be a pipe, which knows no place in itself.
    target = stream if stream.seekable() else io.BytesIO()
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        waiting: list[Any] = []
        for whose, columns in parts(traces, wish):
            arrays = [_array(arrow, each, fields[each.name]) for each in columns]
            waiting.append(arrow.Table.from_arrays(arrays, schema=schema))
            written.append(whose)
            if len(waiting) >= TABLES:
                waiting = [arrow.concat_tables(waiting).combine_chunks()]
            if sum(map(len, waiting)) >= ROWS:
                writer.write_table(arrow.concat_tables(waiting))
                waiting = []
        writer.write_table(arrow.concat_tables([schema.empty_table(), *waiting]))
        said = {
            "hftrace.version": __version__,
            "hftrace.table": wish.table,
            "hftrace.traces": json_text(written),
        }
        writer.add_key_value_metadata(said)
    if isinstance(target, io.BytesIO) and target is not stream:
        stream.write(target.getbuffer())


def _pyarrow() -> tuple[Any, Any]:
    """Returns pyarrow and its module for Parquet.

    Raises:
        HftraceError: It is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise HftraceError(f"Parquet needs pyarrow ({error}): pip install 'hftrace[parquet]'") from None


def _array(arrow: Any, column: Column, kind: Any) -> Any:
    """Returns a column as pyarrow has it.

    Raises:
        HftraceError: It holds what its type cannot.
    """
    try:
        return arrow.array(_values(column), kind)
    except (arrow.ArrowInvalid, OverflowError) as error:
        raise HftraceError(
            f"column {column.name} holds what Parquet's {kind} cannot ({error}): "
            "export the table as csv or jsonl"
        ) from None


def _values(column: Column) -> list[Any]:
    """Returns the values of a column as pyarrow takes them."""
    values = column.values
    if column.name == START_TIME:
        return [_time(values[0])] * len(values) if values else []
    if column.kind == TEXT:
        return [value if value is None else plain(value) for value in values]
    if column.kind == JSON:
        return [value if value is None else json_text(value) for value in values]
    if column.kind == TEXTS:
        return [value if value is None else [plain(str(item)) for item in value] for value in values]
    return values


def _time(value: str | None) -> datetime.datetime | None:
    """Returns a time that a trace says; None where it says none that can be read, or not of which zone."""
    try:
        found = datetime.datetime.fromisoformat((value or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
