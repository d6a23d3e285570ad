"""Whose the end of a session was: that of one of its loads, or of what was done outside of any.

A session may hold loads that failed and were caught, and loads that were fine
before it failed itself. What is said of its end is about one load alone.
"""

from typing import NamedTuple

from hftrace.analysis.lost import is_stopped
from hftrace.analysis.once import once
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import integer, text
from hftrace.schema.trace import Trace


class FailedLoad(NamedTuple):
    """An outermost load that did not end well."""

    row: int
    """Of its span."""
    name: str
    model: str | None
    status: str
    error: str | None
    """Type and message."""
    raised_at: str | None
    """``file:line`` where the exception was raised."""


def ended_outside(trace: Trace) -> bool:
    """Returns whether the session is known to have ended outside of any load."""
    return "load" in trace.outcome and trace.outcome["load"] is None


def ended_load(trace: Trace) -> int | None:
    """Returns the row of the load that the session ended in, or its exception came from; None if unknown."""
    return span_index(trace).row_of.get(integer(trace.outcome.get("load")) or -1)


def ended_span(trace: Trace) -> int | None:
    """Returns the row of the outermost span that the session ended in, a load or another; None if unknown."""
    row = ended_load(trace)
    other = span_index(trace).row_of.get(integer(trace.outcome.get("span")) or -1)
    return row if row is not None else other


@once
def failed_loads(trace: Trace) -> list[FailedLoad]:
    """Returns the outermost loads that are known not to have ended well, in order of time."""
    spans = trace.spans
    found = []
    for row in span_index(trace).load_rows:
        if spans.column("status")[row] in ("ok", "unknown"):
            continue
        noted = spans.column("attributes")[row]
        model, error, place = (text(noted.get(name)) for name in ("model", "error", "raised_at"))
        found.append(
            FailedLoad(row, spans.column("name")[row], model, spans.column("status")[row], error, place)
        )
    return found


def loads_ended_well(trace: Trace) -> bool:
    """Returns whether each load of a session ended well, whatever became of the session after them."""
    ended = trace.outcome.get("status", "ok") == "ok" or ended_outside(trace)
    stopped = is_stopped(trace)  # a load may have failed after that
    return ended and not stopped and not failed_loads(trace)
