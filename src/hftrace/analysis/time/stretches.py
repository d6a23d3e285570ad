"""Stretches: time between recorded spans, named by where the caller's own code was at both ends of it."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.reading import merge
from hftrace.analysis.time.spans import SpanIndex, span_index
from hftrace.analysis.values import natural, text
from hftrace.schema.trace import Trace


class Within(NamedTuple):
    """What stretches lie in: a session, or a step of the caller's."""

    start_ns: int
    end_ns: int
    entered_at: str | None
    """``file:line`` of the caller's code where it began."""
    left_at: str | None
    """The same of where it ended."""


class Stretch(NamedTuple):
    """Time that lies in no span but the step around it, if there is one."""

    start_ns: int
    end_ns: int
    after: str | None
    """``file:line`` of the caller's code where the span before it was called; of where the whole began."""
    before: str | None
    """The same of the span behind it, and of where the whole ended."""
    last: bool
    """Whether the session, or the step that it lies in, ended with it."""
    named: bool
    """Whether it is known whose code ran."""

    @property
    def duration_ns(self) -> int:
        """How long it is."""
        return self.end_ns - self.start_ns


class Between(NamedTuple):
    """What lies between spans."""

    stretches: list[Stretch]
    own_ns: int
    """hftrace's own work there, which is no stretch."""


def between(trace: Trace, rows: Iterable[int], whole: Within, ours: bool = False) -> Between:
    """Returns what of a session or a step lies in none of the spans in it, in order.

    Args:
        trace: The trace.
        rows: Rows of the outermost spans in it.
        whole: The session, or the step.
        ours: Whether hftrace knows whose code runs there, whatever the ends say.
    """
    index = span_index(trace)
    rows = list(rows)
    starts, ends, owned = _edges(trace, index, rows, whole)
    covered = merge(_cut(index, rows, whole))
    own, found = 0, []
    cursor, after = whole.start_ns, whole.entered_at
    for start, end in [*covered, (whole.end_ns, whole.end_ns)]:
        last = start == end  # covered time is never empty
        before = whole.left_at if last else starts.get(start)
        spent = min(owned.get(cursor, 0), start - cursor)
        cursor, own = cursor + spent, own + spent
        if start > cursor:
            named = ours or (after is not None and before is not None)
            found.append(Stretch(cursor, start, after, before, last, named))
        cursor, after = end, ends.get(end)
    return Between(found, own)


def _cut(index: SpanIndex, rows: Iterable[int], whole: Within) -> Iterable[tuple[int, int]]:
    """Returns when spans were open while the whole was."""
    cut = ((max(index.starts[row], whole.start_ns), min(index.ends[row], whole.end_ns)) for row in rows)
    return [(start, end) for start, end in cut if start < end]


def _edges(
    trace: Trace, index: SpanIndex, rows: Iterable[int], whole: Within
) -> tuple[dict[int, str | None], dict[int, str | None], dict[int, int]]:
    """Returns where the caller was by starts of spans and by their ends, and hftrace's work after them."""
    attributes = trace.spans.column("attributes")
    starts: dict[int, str | None] = {}
    ends: dict[int, str | None] = {}
    owned: dict[int, int] = {}
    for row in rows:
        noted: Any = attributes[row]
        facts: Mapping[str, Any] = noted if isinstance(noted, dict) else {}
        caller = text(facts.get("caller"))
        start, end = max(index.starts[row], whole.start_ns), min(index.ends[row], whole.end_ns)
        starts[start] = starts.get(start) or caller
        ends[end] = ends.get(end) or caller
        owned[index.ends[row]] = natural(facts.get("own_ns")) or 0
    return starts, ends, owned


@once
def in_steps(trace: Trace) -> dict[int, Between]:
    """Returns what lies between the spans in each step of the caller's, by its row.

    A step in which nothing was recorded is one piece, which its own name says all of: it is left out.
    """
    index, attributes = span_index(trace), trace.spans.column("attributes")
    found: dict[int, Between] = {}
    for row, phase in enumerate(index.phases):
        if phase != "step":
            continue
        inside = [child for child in index.children[row] if index.lanes[child] == index.lanes[row]]
        if inside:
            noted = attributes[row] if isinstance(attributes[row], dict) else {}
            # Where a step ends is not recorded: that is its own last line, whichever it was.
            found[row] = between(
                trace, inside, Within(*index.bounds(row), text(noted.get("caller")), None), ours=True
            )
    return found
