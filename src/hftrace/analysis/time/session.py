"""The whole session: its wall time, what of it lies in loads, and by name what lies outside of them.

A session is what one trace covers: a block, or a process. What is recorded of
it besides loads are spans: steps that the caller names, imports, changes of a
model. Between them lie stretches that nobody recorded. These are named by
where the caller's own code was at both ends of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.reading import merge
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import integer, natural, text
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import AFTER_LOAD

AROUND = ("step", "import")
"""Phases of spans that may contain loads, and parts of their own."""
OWN = "hftrace"
"""Stands for hftrace's own work outside of spans."""
OUTSIDE = "outside"
"""Stands for what lies in no span at all."""


class Bounds(NamedTuple):
    """When a session began and ended, in ns from the clock base, and where in the caller's code."""

    start_ns: int
    end_ns: int
    entered_at: str | None = None
    left_at: str | None = None
    known: bool = False
    """Whether the trace says so; else it is as long as what was recorded."""

    @property
    def wall_ns(self) -> int:
        """The wall time of the session."""
        return self.end_ns - self.start_ns


class Stretch(NamedTuple):
    """Time of a session that lies in no span."""

    start_ns: int
    end_ns: int
    after: str | None
    """``file:line`` of the caller's code where the span before it was called; of where the session began."""
    before: str | None
    """The same of the span behind it, and of where the session ended."""
    last: bool
    """Whether the session ended with it."""
    named: bool
    """Whether it is known whose code ran."""

    @property
    def duration_ns(self) -> int:
        """How long it is."""
        return self.end_ns - self.start_ns


class Part(NamedTuple):
    """What a session spent outside of loads, in the spans of one name or in stretches between two places."""

    kind: str
    """Phase of the spans, ``outside``, or ``hftrace`` for its own work."""
    name: str
    """Of the span; of what is none, empty."""
    after: str | None
    """Where the caller's code was: it called the spans there, or the stretch began."""
    before: str | None
    """Where a stretch ended."""
    last: bool
    """Whether the session ended with it."""
    duration_ns: int
    """Without what it contains: loads, and parts of their own."""
    times: int
    """How often it was there."""
    status: str

    @property
    def place(self) -> str | None:
        """Where the caller's code was, as ``service.py:12``, which is how a person looks for it."""
        return _short(self.after)

    @property
    def until(self) -> str | None:
        """The same of where a stretch ended."""
        return "the end of the block" if self.last else _short(self.before)

    def to_json(self) -> dict[str, Any]:
        """Returns the part as plain JSON values."""
        return self._asdict()


def _short(place: str | None) -> str | None:
    return None if place is None else place.replace("\\", "/").rpartition("/")[2]


@once
def session_bounds(trace: Trace) -> Bounds:
    """Returns when the session began and ended; traces of before 1.3 say little of it."""
    index = span_index(trace)
    first = min((index.starts[row] for row in index.roots), default=0)
    last = max((index.ends[row] for row in index.roots), default=0)
    if isinstance(trace, LoadTrace):
        return Bounds(first, last)  # of one load nobody asks what lay around it
    said = trace.header.get("session")
    said = said if isinstance(said, dict) else {}
    start, end = integer(said.get("start_ns")), integer(said.get("end_ns"))
    if start is not None and end is not None and start <= end:
        if trace.outcome.get("status") == "killed":
            end = max(end, last)  # nobody was left to say when
        return Bounds(start, end, text(said.get("entered_at")), text(said.get("left_at")), known=True)
    wall = natural(trace.header.get("wall_ns"))
    if wall is None:
        return Bounds(first, max(first, last))
    return Bounds(min(0, first), max(min(0, first) + wall, last))


@once
def session_wall_ns(trace: Trace) -> int:
    """Returns the wall time of the session."""
    bounds = session_bounds(trace)
    if not _is_told(trace):
        return recorded_ns(trace)  # what lies between spans may as well not have been recorded
    return bounds.wall_ns


def _is_told(trace: Trace) -> bool:
    """Says whether a trace tells how long its session was."""
    told = session_bounds(trace).known or natural(trace.header.get("wall_ns")) is not None
    return told and not isinstance(trace, LoadTrace)


def _covered(trace: Trace, rows: Iterable[int]) -> list[tuple[int, int]]:
    """Returns the time of the session in which any of these spans was open, on whatever thread; in order."""
    index, bounds = span_index(trace), session_bounds(trace)
    cut = ((max(index.starts[row], bounds.start_ns), min(index.ends[row], bounds.end_ns)) for row in rows)
    return merge((start, end) for start, end in cut if start < end)


def _length(stretches: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in stretches)


@once
def recorded_ns(trace: Trace) -> int:
    """Returns the time of the session in which any span was open, on whatever thread."""
    return _length(_covered(trace, span_index(trace).roots))


@once
def inside_ns(trace: Trace) -> int:
    """Returns the time of the session that lies in loads."""
    return _length(_covered(trace, span_index(trace).load_rows))


@once
def largest_load_ns(trace: Trace) -> int | None:
    """Returns the wall time of the load that took longest, on whatever thread; None where there is none."""
    index = span_index(trace)
    return max((index.wall_ns(row) for row in index.load_rows), default=None)


@once
def outside_ns(trace: Trace) -> int:
    """Returns the time of the session that lies outside of any load."""
    return session_wall_ns(trace) - inside_ns(trace)


@once
def looked_at_ns(trace: Trace) -> int:
    """Returns the time that the findings are about: loads, imports, and what was asked for after a load."""
    index = span_index(trace)
    kinds = ("load", "import", *AFTER_LOAD)
    return _length(_covered(trace, (row for row, phase in enumerate(index.phases) if phase in kinds)))


@once
def unrecorded_ns(trace: Trace) -> int:
    """Returns the time of the session in which no span was open."""
    return sum(stretch.duration_ns for stretch in stretches(trace)) + own_ns(trace)


@once
def session_attributed(trace: Trace) -> float | None:
    """Returns the share of the session's wall time that has a name; None where it has no time.

    Names have loads and all other spans, and stretches between two known places in the caller's code.
    """
    whole = session_wall_ns(trace)
    if not whole:
        return None
    named = own_ns(trace) + sum(stretch.duration_ns for stretch in stretches(trace) if stretch.named)
    return min(1.0, (recorded_ns(trace) + named) / whole)


def stretches(trace: Trace) -> list[Stretch]:
    """Returns the time of the session in which no span was open on any thread, in order."""
    return _outside(trace)[0]


def own_ns(trace: Trace) -> int:
    """Returns the time in which no span was open because hftrace itself was at work."""
    return _outside(trace)[1]


@once
def _outside(trace: Trace) -> tuple[list[Stretch], int]:
    """Returns the caller's stretches outside of spans, and the time of hftrace's own work there."""
    bounds, index = session_bounds(trace), span_index(trace)
    if not _is_told(trace):
        return [], 0
    covered = _covered(trace, index.roots)
    callers, owned = _callers(trace), _owned(trace)
    own = 0
    # All that runs around a load of "hftrace load" is the interpreter's start and hftrace itself.
    ours = trace.header.get("command") == "load"
    found = []
    cursor, after = bounds.start_ns, bounds.entered_at
    for start, end in [*covered, (bounds.end_ns, bounds.end_ns)]:
        last = start == end  # covered time is never empty
        before = bounds.left_at if last else callers[0].get(start)
        spent = min(owned.get(cursor, 0), start - cursor)
        cursor, own = cursor + spent, own + spent
        if start > cursor:
            named = ours or (after is not None and before is not None)
            found.append(Stretch(cursor, start, after, before, last, named))
        cursor, after = end, callers[1].get(end)
    return found, own


def _owned(trace: Trace) -> dict[int, int]:
    """Returns how long hftrace was at work after root spans, by their ends."""
    index, attributes = span_index(trace), trace.spans.column("attributes")
    noted = ((row, attributes[row]) for row in index.roots)
    return {
        index.ends[row]: natural(facts.get("own_ns")) or 0 for row, facts in noted if isinstance(facts, dict)
    }


def _callers(trace: Trace) -> tuple[dict[int, str | None], dict[int, str | None]]:
    """Returns where the caller's code was by the starts of root spans, and by their ends."""
    index, bounds = span_index(trace), session_bounds(trace)
    attributes = trace.spans.column("attributes")
    starts: dict[int, str | None] = {}
    ends: dict[int, str | None] = {}
    for row in index.roots:
        noted = attributes[row]
        caller = text(noted.get("caller")) if isinstance(noted, dict) else None
        start, end = max(index.starts[row], bounds.start_ns), min(index.ends[row], bounds.end_ns)
        starts[start] = starts.get(start) or caller
        ends[end] = ends.get(end) or caller
    return starts, ends


@once
def parts(trace: Trace) -> list[Part]:
    """Returns what lies outside of loads by name, the longest first.

    Spans of several threads at once are parts of their own, and each has all of its time.
    """
    index = span_index(trace)
    names, statuses = trace.spans.column("name"), trace.spans.column("status")
    attributes = trace.spans.column("attributes")
    sums: dict[tuple[str, str, str | None, str | None, bool, str], list[int]] = {}
    for row in _outside_rows(trace):
        noted = attributes[row] if isinstance(attributes[row], dict) else {}
        caller = text(noted.get("caller"))
        of_span = (index.phases[row], str(names[row]), caller, None, False, str(statuses[row]))
        spent = index.self_ns(row) if index.phases[row] in AROUND else index.wall_ns(row)
        sums.setdefault(of_span, []).append(spent)
    for stretch in stretches(trace):
        of_stretch = (OUTSIDE, "", stretch.after, stretch.before, stretch.last, "ok")
        sums.setdefault(of_stretch, []).append(stretch.duration_ns)
    if own_ns(trace):
        sums[OWN, "", None, None, False, "ok"] = [own_ns(trace)]
    found = [Part(*key[:5], sum(times), len(times), key[5]) for key, times in sums.items()]
    return sorted(found, key=lambda part: -part.duration_ns)


def _outside_rows(trace: Trace) -> list[int]:
    """Returns the spans that lie outside of loads, and are no detail of another one."""
    index = span_index(trace)
    found: list[int] = []
    waiting = list(index.roots)
    while waiting:
        row = waiting.pop()
        if index.phases[row] != "load":
            found.append(row)
            waiting += index.children[row] if index.phases[row] in AROUND else []
    return found
