"""How long everything took: the wall time of a trace, of its loads, and of each phase.

Threads that load at once do not take longer for it: a moment counts once,
whatever runs in it (:mod:`hftrace.analysis.time.shared`).
"""

from __future__ import annotations

from collections.abc import Sequence

from hftrace.analysis.once import once
from hftrace.analysis.time.shared import shared_by_row, union_ns
from hftrace.analysis.time.spans import UNATTRIBUTED, SpanIndex, span_index
from hftrace.schema.trace import Trace


@once
def recorded_wall_ns(trace: Trace) -> int:
    """Returns the time in which any root span of the main process was open, on whatever thread."""
    index = span_index(trace)
    return wall_of(index, index.process_roots)


@once
def loads_wall_ns(trace: Trace) -> int:
    """Returns the time in which any outermost load was open, on whatever thread of whatever rank."""
    index = span_index(trace)
    return wall_of(index, index.load_rows)


def wall_of(index: SpanIndex, rows: Sequence[int]) -> int:
    """Returns the time in which any of these spans was open."""
    return union_ns(index.bounds(row) for row in rows)


@once
def phase_times(trace: Trace) -> dict[str, int]:
    """Returns the exclusive time by phase in the main process, longest first; it adds up to the wall time."""
    index = span_index(trace)
    return phases_of(index, index.process_roots)


def phases_of(index: SpanIndex, rows: Sequence[int]) -> dict[str, int]:
    """Returns exclusive time by phase below ``rows``, longest first; a load's own is unattributed."""
    times: dict[str, int] = {}
    for row, spent in shared_by_row(index, rows).items():
        phase = UNATTRIBUTED if index.phases[row] == "load" else index.phases[row]
        times[phase] = times.get(phase, 0) + spent
    return dict(sorted(times.items(), key=lambda item: -item[1]))


@once
def attributed_share(trace: Trace) -> float | None:
    """Returns the share of the loads' wall times that lies in a named phase; None where there is no load."""
    index = span_index(trace)
    whole = sum(index.wall_ns(row) for row in index.load_rows)
    statuses = trace.spans.column("status")
    if not whole or any(statuses[row] == "unknown" for row in index.load_rows):
        return None  # of a load whose end is not known nobody knows how long it took
    return 1 - index.phase_times(index.load_rows).get(UNATTRIBUTED, 0) / whole
