"""The loads of a session, each as a trace of its own: what is true of one load is asked of that.

Every figure, view and rule is a function of a trace. A session of several loads is cut into one
trace for each, with its own spans, rows, request and ending, so that nothing of one is added to another's.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadTrace, asked_for, load_groups, load_names, noted, request_of
from hftrace.analysis.time.spans import asked_after, span_index
from hftrace.analysis.time.whose import ended_load
from hftrace.errors import UsageError
from hftrace.schema.model import Facts, File, Request, Row, Sample, Span, Table, Tensor
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import READY_PHASES

BUILDS_A_MODEL = ("instantiate", "weights")
"""Phases of which a load that makes a model has one, and a config's or a tokenizer's none."""
FOLLOWS_A_LOAD = (*READY_PHASES, "generate", "release")
"""Phases of root spans that are about the load before them, and about no other."""


def load_traces(trace: Trace) -> list[Trace]:
    """Returns the trace of each load; that of the session itself where it has one load or none.

    The ending of the one load is the load's own all the same: the program may have caught its exception,
    or have failed itself after it.
    """
    return _other_traces(trace) or [trace]


@once
def _other_traces(trace: Trace) -> list[Trace]:
    """Returns the traces of the loads; none where the session's own is that of its load."""
    groups = load_groups(trace)
    if not groups or isinstance(trace, LoadTrace):
        return []
    if len(groups) == 1:
        outcome = _outcome(trace, groups[0])
        same = outcome.get("status") == trace.outcome.get("status", "ok")
        return [] if same else [dataclasses.replace(trace, outcome=outcome)]
    return [_cut(trace, number, rows) for number, rows in enumerate(groups, 1)]


def pick_load(trace: Trace, number: int, where: str = "the trace") -> Trace:
    """Returns what a trace says of one of its loads.

    Args:
        trace: The session's.
        number: The load's place by its start, from 1.
        where: What to call the trace.

    Raises:
        UsageError: It has no such load.
    """
    groups = load_groups(trace)
    if not 1 <= number <= len(groups):
        count = len(groups)
        there = "no load in it" if not count else "only load 1" if count == 1 else f"loads 1 to {count}"
        raise UsageError(f"there is no load {number} in {where}, which has {there}: hftrace show lists them")
    found = _cut(trace, number, groups[number - 1]) if len(groups) == 1 else load_traces(trace)[number - 1]
    # A model that went into another one is shown as its load left it.
    return found if len(found.tensors) else as_loaded(found)


def trace_of_row(trace: Trace, row: int) -> Trace:
    """Returns what a trace says of one load on one rank.

    Args:
        trace: The session's.
        row: Row of the load's span.
    """
    for number, rows in enumerate(load_groups(trace), 1):
        if row in rows:
            return load_traces(trace)[number - 1] if len(rows) == 1 else _cut(trace, number, (row,))
    return trace


def main_load_trace(trace: Trace) -> Trace:
    """Returns the trace of the load that a session's request is of: of the first model, where there is one.

    What is a figure of a model is that load's; those of several are never added up.
    """
    traces = load_traces(trace)
    if len(traces) == 1:
        return traces[0]
    asked = asked_for(trace)
    for number, rows in enumerate(load_groups(trace)):
        if asked in rows:
            return traces[number]
    first = min(load_names(trace), key=lambda name: (name.place, name.number))
    return next(each for each in traces if isinstance(each, LoadTrace) and each.number == first.number)


@once
def only_model_trace(trace: Trace) -> Trace | None:
    """Returns the trace of the one load that has a model; None where none has, or several have."""
    traces = load_traces(trace)
    if len(traces) == 1:
        return traces[0]
    found = [each for each in traces if len(each.tensors)]
    return found[0] if len(found) == 1 and not taken_over(trace) and not unplaced_rows(trace) else None


@once
def ending_load_trace(trace: Trace) -> Trace:
    """Returns the trace of the load that a session ended in: the last that failed, else the last one."""
    traces = load_traces(trace)
    if len(traces) == 1:
        return traces[0]
    return next((each for each in traces if each.outcome is trace.outcome), traces[-1])


def _cut(session: Trace, number: int, rows: Sequence[int]) -> LoadTrace:
    """Returns what a trace says of a load."""
    index = span_index(session)
    inside = sorted({*index.walk(rows), *index.walk(_after(session, rows))})
    ids = {index.ids[row] for row in inside}
    start = min(index.starts[row] for row in inside)
    end = max(index.ends[row] for row in inside)
    asked = session.files.column("asked_by")
    asked_by = session.requests.column("asked_by")
    pids = {index.lanes[row].pid for row in rows}
    times, processes = session.samples.column("time_ns"), session.samples.column("pid")
    taken = [
        row
        for row, (time, pid) in enumerate(zip(times, processes, strict=True))
        if start <= time <= end and (pid is None or pid in pids)
    ]
    return LoadTrace(
        header=Facts({**session.header, "wall_ns": end - start}),
        environment=session.environment,
        request=Facts(request_of(session, rows[0])),
        outcome=_outcome(session, rows),
        spans=_rows(session.spans, Span, inside),
        tensors=_rows(session.tensors, Tensor, _tensor_rows(session, rows)),
        files=_rows(session.files, File, [row for row, span in enumerate(asked) if span in ids]),
        samples=_rows(session.samples, Sample, taken),
        requests=_rows(session.requests, Request, [row for row, span in enumerate(asked_by) if span in ids]),
        at_return=_rows(session.at_return, Tensor, _tensor_rows(as_loaded(session), rows))
        if len(session.at_return)
        else session.at_return,
        session=session,
        number=number,
    )


def _rows(table: Table[Row], row_type: type[Row], rows: Sequence[int]) -> Table[Row]:
    """Returns some rows of a table as a table; what lies together is cut out in one piece."""
    if rows and rows[-1] - rows[0] + 1 == len(rows):
        first, last = rows[0], rows[-1] + 1
        return Table(row_type, {name: column[first:last] for name, column in table.columns.items()})
    columns = {name: list(map(column.__getitem__, rows)) for name, column in table.columns.items()}
    return Table(row_type, columns)


def _after(session: Trace, rows: Iterable[int]) -> list[int]:
    """Returns the roots that follow loads on their threads and are about them: up to the next load."""
    index, asked = span_index(session), asked_after(session)
    found = []
    for load in rows:
        lane = index.lanes[load]
        for row in index.roots:
            if index.lanes[row] != lane or index.starts[row] < index.starts[load] or row == load:
                continue
            if index.phases[row] == "load":
                break
            if row in asked and index.phases[row] in FOLLOWS_A_LOAD:
                found.append(row)
    return found


@once
def taken_over(trace: Trace) -> dict[int, dict[int, int]]:
    """Returns how many tensors that one load read are in the ledger of a later one, which made them its own.

    By the row of the load that read them: by the number of the other, their count. A model that an adapter is
    put into is in the ledger of the adapter's load.
    """
    found: dict[int, dict[int, int]] = {}
    if len(load_groups(trace)) < 2:
        return found
    numbers = {row: number for number, rows in enumerate(load_groups(trace), 1) for row in rows}
    root_of = _roots(trace)
    for load, span in zip(trace.tensors.column("load"), trace.tensors.column("span"), strict=True):
        reader = root_of.get(span) if span is not None else None
        owner = root_of.get(load) if load is not None else None
        if reader is not None and owner is not None and reader != owner:
            counts = found.setdefault(reader, {})
            counts[numbers[owner]] = counts.get(numbers[owner], 0) + 1
    return found


def was_read_before(trace: Trace, span: int | None) -> bool:
    """Returns whether a tensor in the ledger of a load was read by an earlier one.

    Args:
        trace: The trace.
        span: The span that the tensor was read in.
    """
    return isinstance(trace, LoadTrace) and span is not None and span not in span_index(trace).row_of


@once
def _roots(trace: Trace) -> dict[int, int]:
    """Returns the row of the load that each span inside of one lies in, by the span's id."""
    index = span_index(trace)
    return {
        index.ids[row]: load for rows in load_groups(trace) for load in rows for row in index.walk([load])
    }


@once
def _tensors_by_load(trace: Trace) -> dict[int | None, list[int]]:
    """Returns the rows of the ledger by the row of their load's span; None for those that nobody can place.

    Traces of before 1.2 have no column for it: there the span that a tensor was read in says it, or when it
    was read or placed. What has neither belongs to the one load that makes a model, where there is one.
    """
    index = span_index(trace)
    loads = [row for rows in load_groups(trace) for row in rows]
    root_of = _roots(trace)
    building = [
        load for load in loads if any(index.phases[row] in BUILDS_A_MODEL for row in index.walk([load]))
    ]
    only = building[0] if len(building) == 1 else None

    def guessed(span: int | None, time_ns: int | None) -> int | None:
        if span is not None and span in root_of:
            return root_of[span]
        if time_ns is None:
            return only
        during = [load for load in loads if index.starts[load] <= time_ns <= index.ends[load]]
        return during[0] if len(during) == 1 else only

    found: dict[int | None, list[int]] = defaultdict(list)
    columns = (trace.tensors.column(name) for name in ("load", "span", "placed_ns", "read_end_ns"))
    for row, (load, span, placed, read) in enumerate(zip(*columns, strict=True)):
        known = root_of.get(load) if load is not None else guessed(span, read if placed is None else placed)
        found[known].append(row)
    return found


def unplaced_rows(trace: Trace) -> list[int]:
    """Returns the rows of the tensor ledger of which nobody can say which of several loads they are of."""
    return _tensors_by_load(trace).get(None, [])


def _tensor_rows(trace: Trace, rows: Sequence[int]) -> list[int]:
    by_load = _tensors_by_load(trace)
    return sorted(row for load in rows for row in by_load.get(load, ()))


def _outcome(trace: Trace, rows: Sequence[int]) -> Facts:
    """Returns how a load ended: as the session did, where it was this load that ended it."""
    statuses = trace.spans.column("status")
    failed = next((row for row in rows if statuses[row] != "ok"), None)
    if failed is None:
        return Facts({"status": "ok"})
    index = span_index(trace)
    last: int | None = ended_load(trace)
    if "load" not in trace.outcome:  # nobody says which one: of those that ended like this, the last
        last = max(
            (row for row in index.load_rows if statuses[row] == trace.outcome.get("status")),
            key=lambda row: (index.ends[row], index.starts[row]),
            default=None,
        )
    if last in rows and trace.outcome.get("status", "ok") != "ok":
        return trace.outcome
    kind, colon, message = str(noted(trace, failed).get("error") or "").partition(": ")
    error = {"type": kind, "message": message if colon else ""} if kind else None
    return Facts({"status": statuses[failed], "error": error})
