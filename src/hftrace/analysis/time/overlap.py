"""Loads of one process that ran at the same time."""

from typing import NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.loads import BUILDS_A_MODEL
from hftrace.analysis.time.spans import span_index
from hftrace.schema.trace import Trace


class Overlap(NamedTuple):
    """Loads of models that ran at the same time in one process."""

    rows: list[int]
    """Their spans."""
    threads: int
    at_once: int
    """The most that were open at a time."""


@once
def model_loads(trace: Trace) -> list[int]:
    """Returns the rows of the outermost loads that built a model or placed weights."""
    index = span_index(trace)
    return [
        row
        for row in index.load_rows
        if any(index.phases[below] in BUILDS_A_MODEL for below in index.walk([row]))
    ]


@once
def overlapping_loads(trace: Trace) -> Overlap | None:
    """Returns the loads of models that overlapped another one of their process; None where none did.

    Of a single load of a session: those that it was among, as rows of the session.
    """
    index = span_index(trace)
    if isinstance(trace, LoadTrace):
        found = overlapping_loads(trace.session)
        ids = span_index(trace.session).ids
        mine = {index.ids[row] for row in index.load_rows}
        return found if found is not None and not mine.isdisjoint(ids[row] for row in found.rows) else None
    by_process: dict[tuple[int, int], list[int]] = {}
    for row in model_loads(trace):
        lane = index.lanes[row]
        by_process.setdefault((lane.rank, lane.pid), []).append(row)
    overlapping: set[int] = set()
    most = 0
    for rows in by_process.values():
        open_rows: list[int] = []
        for row in sorted(rows, key=lambda row: (index.starts[row], row)):
            open_rows = [other for other in open_rows if index.ends[other] > index.starts[row]]
            if open_rows:
                overlapping.update(open_rows, [row])
            open_rows.append(row)
            most = max(most, len(open_rows))
    if not overlapping:
        return None
    return Overlap(sorted(overlapping), len({index.lanes[row] for row in overlapping}), most)


@once
def overlapped_by(trace: Trace) -> dict[int, list[int]]:
    """Returns, for each outermost load that ran at the same time as others of its process, their rows.

    Loads of anything: a tokenizer's beside a model's costs nothing but its share of the time.
    """
    index = span_index(trace)
    found: dict[int, list[int]] = {}
    open_rows: list[int] = []
    for row in sorted(index.load_rows, key=lambda row: (index.starts[row], row)):
        open_rows = [other for other in open_rows if index.ends[other] > index.starts[row]]
        for other in open_rows:
            if index.lanes[other][:2] == index.lanes[row][:2]:
                found.setdefault(other, []).append(row)
                found.setdefault(row, []).append(other)
        open_rows.append(row)
    return found
