"""The part of a session that its ending is about: a load, or what lay outside of all loads.

What another load failed for, and the program caught, is no reason for the end.
"""

from __future__ import annotations

import dataclasses

from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadTrace, load_groups
from hftrace.analysis.time.loads import trace_of_row
from hftrace.analysis.time.session import session_bounds
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.whose import ended_load, ended_outside
from hftrace.schema.model import Facts, Row, Table
from hftrace.schema.trace import Trace


@once
def ending_part(trace: Trace) -> Trace:
    """Returns what a trace says of the load that it ended in, or of what lay outside of any."""
    if isinstance(trace, LoadTrace):
        return trace
    if ended_outside(trace):
        return _outside(trace)
    row = ended_load(trace)
    return trace if row is None or len(load_groups(trace)) < 2 else trace_of_row(trace, row)


def _outside(trace: Trace) -> Trace:
    """Returns a trace without what belongs to its loads."""
    index = span_index(trace)
    inside = {index.ids[row] for row in index.walk(index.load_rows)}
    return dataclasses.replace(
        trace,
        request=Facts({}),
        spans=_without(trace.spans, "id", inside),
        tensors=_without(trace.tensors, "load", inside),
        at_return=_without(trace.at_return, "load", inside),
        files=_without(trace.files, "asked_by", inside),
        requests=_without(trace.requests, "asked_by", inside),
    )


def _without(table: Table[Row], column: str, those: set[int]) -> Table[Row]:
    rows = [row for row, value in enumerate(table.column(column)) if value not in those]
    columns = {name: [values[row] for row in rows] for name, values in table.columns.items()}
    return Table(table.row_type, columns)


@once
def ended_ns(trace: Trace) -> int | None:
    """Returns when that ended, in ns from the clock base; None where nothing was recorded."""
    index, row = span_index(trace), ended_load(trace)
    if row is not None and trace.outcome.get("status") != "killed":
        return index.ends[row]
    if ended_outside(trace) and session_bounds(trace).known:
        return session_bounds(trace).end_ns
    return max(index.ends, default=None)


@once
def ended_load_start_ns(trace: Trace) -> int | None:
    """Returns when the load began that a trace ended in; None where it ended in none."""
    index, row = span_index(trace), ended_load(trace)
    if row is not None:
        return index.starts[row]
    return None if ended_outside(trace) or not index.load_rows else index.starts[index.load_rows[-1]]
