"""One table of a trace, as named columns that say what they hold: what formats that hold a table write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hftrace.analysis.load_facts import loads
from hftrace.analysis.time.session import session_wall_ns
from hftrace.analysis.values import text
from hftrace.export import Wish
from hftrace.schema.checks import TABLES, Kind, kinds_of
from hftrace.schema.trace import Trace

INTEGER, NUMBER, FLAG, TEXT = "integer", "number", "flag", "text"
INTEGERS, TEXTS, JSON = "integers", "texts", "json"
"""What a column holds, nulls aside; of JSON its text is written, by formats that have no such thing."""

IDENTITY = {
    "trace": TEXT,
    "trace_start_time": TEXT,
    "trace_host": TEXT,
    "trace_model": TEXT,
    "trace_revision": TEXT,
    "trace_commit": TEXT,
    "trace_transformers": TEXT,
    "trace_torch": TEXT,
    "trace_hftrace": TEXT,
    "trace_status": TEXT,
    "trace_wall_ns": INTEGER,
}
"""Columns at the end of each row that say which trace it is of, so that rows of many can be grouped."""
OTHER = "other_columns"
"""The column of what this version does not know, an object of JSON by column: a newer one wrote it."""
_LOADS = {
    INTEGER: (
        *("number", "span", "start_ns", "end_ns", "thread", "rank", "pid", "wall_ns", "checkpoint_bytes"),
        *("read_bytes", "mapped_bytes", "reading_ns", "weights_ns", "lazy_bytes", "waiting_ns"),
        *("read_call_bytes", "storage_stall_ns"),
        "reader_threads",
    ),
    NUMBER: ("attributed", "rate_bytes_per_s", "resident_before", "resident_share"),
    TEXT: ("name", "class", "what", "model", "function", "status", "process", "cache", "read_by"),
    TEXTS: ("adapters",),
    JSON: (
        *("error", "phases", "request", "got", "code", "quantised", "dtype", "memory", "device_peak_bytes"),
        *("held", "arrival", "shards", "tensors", "tensors_in", "files", "findings"),
    ),
}
LOADS = {name: kind for kind, names in _LOADS.items() for name in names}
"""The columns of the table of loads: the keys of a load in the summary."""
_TYPES: dict[str, tuple[type, ...]] = {INTEGER: (int,), NUMBER: (float, int), TEXT: (str,), TEXTS: (list,)}


class Column(NamedTuple):
    """One column of a table."""

    name: str
    kind: str
    values: list[Any]


def columns_of(trace: Trace, table: str) -> dict[str, list[Any]]:
    """Returns a table of a trace by column, with all that the trace has.

    Args:
        trace: The trace.
        table: One of :data:`hftrace.export.TABLES`; ``loads`` are those of the trace's summary.
    """
    if table == "loads":
        rows = loads(trace)
        return {name: [_fit(row[name], kind) for row in rows] for name, kind in LOADS.items()}
    found: dict[str, list[Any]] = getattr(trace, table).columns
    return found


def _fit(value: Any, kind: str) -> Any:
    """Returns a figure of a load, or None where a damaged trace made it something that its column is not."""
    return value if kind == JSON or isinstance(value, _TYPES[kind]) else None


def kinds(table: str) -> dict[str, str]:
    """Returns what each column of a table holds, the same for every trace."""
    if table == "loads":
        return dict(LOADS)
    if table not in TABLES:
        raise KeyError(table)
    return {name: _kind(kind) for name, kind in kinds_of(table).items()}


def _kind(kind: Kind) -> str:
    if list in kind.types:
        return INTEGERS if kind.items is int else TEXTS if kind.items is str else JSON
    if float in kind.types:
        return NUMBER
    simple = {int: INTEGER, bool: FLAG, str: TEXT}
    return next((simple[each] for each in kind.types if each in simple), JSON)


def identity(trace: Trace, path: str) -> dict[str, Any]:
    """Returns which trace it is, and what its figures are compared by; a value for each of :data:`IDENTITY`.

    Args:
        trace: The trace.
        path: Where it lies, as it was named.
    """
    header, environment, request = trace.header, trace.environment, trace.request
    return {
        "trace": path or None,
        "trace_start_time": text(header.get("start_time")),
        "trace_host": text(environment.get("host")),
        "trace_model": text(request.get("model")),
        "trace_revision": text(request.get("revision")),
        "trace_commit": text(request.get("commit")),
        "trace_transformers": text(environment.get("transformers")),
        "trace_torch": text(environment.get("torch")),
        "trace_hftrace": text(header.get("hftrace")),
        "trace_status": text(trace.outcome.get("status")),
        "trace_wall_ns": session_wall_ns(trace),
    }


def all_kinds(table: str) -> dict[str, str]:
    """Returns the columns of a file that holds a table, of one trace or of several, and what they hold."""
    return {**kinds(table), OTHER: JSON, **IDENTITY}


def parts(traces: Sequence[Trace], wish: Wish) -> Iterator[tuple[dict[str, Any], list[Column]]]:
    """Yields which trace it is and its rows, of each in turn, in the columns of :func:`all_kinds`."""
    known = kinds(wish.table)
    for place, trace in enumerate(traces):
        columns = columns_of(trace, wish.table)
        count = len(next(iter(columns.values()), ()))
        whose = identity(trace, wish.paths[place] if place < len(wish.paths) else "")
        yield (
            whose,
            [
                *(Column(name, kind, columns.get(name, [None] * count)) for name, kind in known.items()),
                Column(OTHER, JSON, _others(columns, known, count)),
                *(Column(name, kind, [whose[name]] * count) for name, kind in IDENTITY.items()),
            ],
        )


def _others(columns: dict[str, list[Any]], known: dict[str, str], count: int) -> list[Any]:
    """Returns the values of the columns that are not known here, as an object for each row."""
    names = [name for name in columns if name not in known]
    if not names:
        return [None] * count
    return [{name: columns[name][row] for name in names} for row in range(count)]


def json_text(value: Any) -> str:
    """Returns a list or an object as the text of JSON, ASCII alone."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def plain(value: str) -> str:
    """Returns a text that UTF-8 can hold: half a surrogate, of a file name that is no UTF-8, is escaped."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
