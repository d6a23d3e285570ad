"""How long everything took: the wall time of a trace, of its loads, and of each phase."""

from __future__ import annotations

from hftrace.analysis.once import once
from hftrace.analysis.time.spans import UNATTRIBUTED, span_index
from hftrace.schema.trace import Trace


@once
def recorded_wall_ns(trace: Trace) -> int:
    """Returns the sum of the root spans of the main thread."""
    index = span_index(trace)
    return sum(index.wall_ns(row) for row in index.main_roots)


@once
def loads_wall_ns(trace: Trace) -> int:
    """Returns the wall time of all outermost loads."""
    index = span_index(trace)
    return sum(index.wall_ns(row) for row in index.load_rows)


@once
def phase_times(trace: Trace) -> dict[str, int]:
    """Returns the exclusive time by phase on the main thread, longest first."""
    index = span_index(trace)
    return index.phase_times(index.main_roots)


@once
def attributed_share(trace: Trace) -> float | None:
    """Returns the share of the loads' wall time that lies in a named phase; None where there is no load."""
    whole = loads_wall_ns(trace)
    if not whole:
        return None
    index = span_index(trace)
    return 1 - index.phase_times(index.load_rows).get(UNATTRIBUTED, 0) / whole
