"""The whole session: its wall time, what of it lies in loads, and by name what lies outside of them.

A session is what one trace covers: a block, or a process. What is recorded of
it besides loads are spans: steps that the caller names, imports, changes of a
model. Between them lie stretches that nobody recorded. These are named by
where the caller's own code was at both ends of them.
"""

import bisect
from collections.abc import Iterable
from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.reading import merge
from hftrace.analysis.time.spans import asked_after, span_index
from hftrace.analysis.time.stretches import Between, Stretch, Within, between, in_steps
from hftrace.analysis.values import integer, natural, text
from hftrace.schema.trace import Trace

AROUND = ("step", "import")
"""Phases of spans that may contain loads, and parts of their own."""
OWN = "hftrace"
"""Stands for hftrace's own work outside of spans."""
UNRECORDED = "unrecorded"
"""Stands for what came after the journal had stopped."""
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
    recorded_until_ns: int | None = None
    """When the journal stopped: of what came after that little is known. None where it did not."""

    @property
    def wall_ns(self) -> int:
        """The wall time of the session."""
        return self.end_ns - self.start_ns


class Inside(NamedTuple):
    """What of a step lies between two places in the caller's code, and in no span below the step."""

    after: str | None
    """Where it began: the step did, or the last span before it was called."""
    before: str | None
    """Where it ended; None for the end of the step."""
    last: bool
    """Whether the step ended with it."""
    duration_ns: int
    times: int


class Part(NamedTuple):
    """What a session spent outside of loads, in the spans of one name or in stretches between two places."""

    kind: str
    """Phase of the spans, ``outside``, ``hftrace`` for its own work, or ``unrecorded``."""
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
    inside: tuple[Inside, ...] = ()
    """Of a step in which other things were recorded, the stretches between these, the longest first."""

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
        return {**self._asdict(), "inside": [each._asdict() for each in self.inside]}


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
        until = integer(said.get("recorded_until_ns"))
        until = until if until is None else min(max(until, start), end)
        places = text(said.get("entered_at")), text(said.get("left_at"))
        return Bounds(start, end, *places, known=True, recorded_until_ns=until)
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
    """Returns the time of the session that is known to lie outside of any load."""
    return session_wall_ns(trace) - inside_ns(trace) - missed_ns(trace)


@once
def missed_ns(trace: Trace) -> int:
    """Returns the time after the journal had stopped, in which no span is known to have been open."""
    bounds = session_bounds(trace)
    if bounds.recorded_until_ns is None:
        return 0
    known = _covered(trace, span_index(trace).roots)
    since = bounds.recorded_until_ns
    return bounds.end_ns - since - _length((max(start, since), end) for start, end in known if end > since)


@once
def looked_at_ns(trace: Trace) -> int:
    """Returns the time that the findings are about: loads, imports, and what was asked for after a load."""
    index = span_index(trace)
    after = asked_after(trace)
    looked_at = (row for row, phase in enumerate(index.phases) if phase in ("load", "import") or row in after)
    return _length(_covered(trace, looked_at))


@once
def unrecorded_ns(trace: Trace) -> int:
    """Returns the time of the session in which no span was open."""
    return sum(stretch.duration_ns for stretch in stretches(trace)) + own_ns(trace) + missed_ns(trace)


@once
def session_attributed(trace: Trace) -> float | None:
    """Returns the share of the session's wall time that has a name; None where it has no time.

    Names have loads and all other spans, and stretches between two known places in the caller's code.
    """
    whole = session_wall_ns(trace)
    until = session_bounds(trace).recorded_until_ns
    if not whole or (until is not None and until >= session_bounds(trace).end_ns):
        return None  # where the journal stopped, and nobody saw the session end, its length is not known
    named = own_ns(trace) + sum(stretch.duration_ns for stretch in stretches(trace) if stretch.named)
    recorded = _covered(trace, span_index(trace).roots)
    if until is not None:  # that a load went on is known, and nothing of what it did
        recorded = [(start, min(end, until)) for start, end in recorded if start < until]
    return min(1.0, (_length(recorded) + named) / whole)


def stretches(trace: Trace) -> list[Stretch]:
    """Returns the time of the session in which no span was open on any thread, in order."""
    return _outside(trace).stretches


def own_ns(trace: Trace) -> int:
    """Returns the time in which no span was open because hftrace itself was at work."""
    return _outside(trace).own_ns


@once
def _outside(trace: Trace) -> Between:
    """Returns the caller's stretches outside of spans, and the time of hftrace's own work there."""
    bounds = session_bounds(trace)
    if not _is_told(trace):
        return Between([], 0)
    # All that runs around a load of "hftrace load" is the interpreter's start and hftrace itself.
    ours = trace.header.get("command") == "load"
    until = bounds.recorded_until_ns
    if until is None:
        return between(trace, span_index(trace).roots, Within(*bounds[:4]), ours)
    seen = Within(bounds.start_ns, until, bounds.entered_at, None)
    found = between(trace, span_index(trace).roots, seen, ours)
    return found._replace(stretches=[stretch._replace(last=False) for stretch in found.stretches])


@once
def parts(trace: Trace) -> list[Part]:
    """Returns what lies outside of loads by name, the longest first.

    Spans of several threads at once are parts of their own, and each has all of its time. What hftrace
    itself did in a step is not the step's, and no load that ran in it on another thread is.
    """
    index = span_index(trace)
    names, statuses = trace.spans.column("name"), trace.spans.column("status")
    attributes = trace.spans.column("attributes")
    sums: dict[tuple[str, str, str | None, str | None, bool, str], list[int]] = {}
    below: dict[tuple[str, str, str | None, str | None, bool, str], list[Stretch]] = {}
    own = own_ns(trace)
    for row in _outside_rows(trace):
        noted = attributes[row] if isinstance(attributes[row], dict) else {}
        caller = text(noted.get("caller"))
        of_span = (index.phases[row], str(names[row]), caller, None, False, str(statuses[row]))
        spent = index.self_ns(row) if index.phases[row] in AROUND else index.wall_ns(row)
        elsewhere = _loads_elsewhere(trace, row) if index.phases[row] == "step" else 0
        if elsewhere:
            spent -= elsewhere
        elif row in in_steps(trace):
            found_in = in_steps(trace)[row]
            below.setdefault(of_span, []).extend(found_in.stretches)
            own, spent = own + found_in.own_ns, spent - found_in.own_ns
        sums.setdefault(of_span, []).append(spent)
    for stretch in stretches(trace):
        of_stretch = (OUTSIDE, "", stretch.after, stretch.before, stretch.last, "ok")
        sums.setdefault(of_stretch, []).append(stretch.duration_ns)
    if own:
        sums[OWN, "", None, None, False, "ok"] = [own]
    if missed := missed_ns(trace):
        sums[UNRECORDED, "", None, None, False, "ok"] = [missed]
    found = [
        Part(*key[:5], sum(times), len(times), key[5], _inside(below.get(key, [])))
        for key, times in sums.items()
    ]
    return sorted(found, key=lambda part: -part.duration_ns)


def _loads_elsewhere(trace: Trace, row: int) -> int:
    """Returns the time of a step itself in which loads ran that began and ended in it, on other threads.

    A coroutine that loads in a thread waits for it.
    """
    index = span_index(trace)
    lane, (start, end) = index.lanes[row], index.bounds(row)
    rows = index.load_rows  # in order of time
    first = bisect.bisect_left(rows, start, key=lambda load: index.starts[load])
    until = bisect.bisect_right(rows, end, key=lambda load: index.starts[load])
    loads = [
        (index.starts[load], index.ends[load])
        for load in rows[first:until]
        if index.lanes[load].pid == lane.pid and index.lanes[load] != lane and index.ends[load] <= end
    ]
    if not loads:
        return 0
    own = [(begin, until) for begin, until, each in index.exclusive([row]) if each == row]
    # What two sets of stretches have in common is what their union is shorter by.
    return _length(merge(loads)) + _length(own) - _length(merge([*loads, *own]))


@once
def imports_in_parts(trace: Trace) -> dict[tuple[str, str, str | None], int]:
    """Returns the time of imports in parts that are no imports themselves, by phase, name and caller.

    ``torch.compile`` imports its compiler, to name one. Imports in steps are parts of their own.
    """
    index = span_index(trace)
    names, attributes = trace.spans.column("name"), trace.spans.column("attributes")
    found: dict[tuple[str, str, str | None], int] = {}
    for row in _outside_rows(trace):
        if index.phases[row] in (*AROUND, "import"):
            continue
        below = [each for each in index.walk([row]) if index.phases[each] == "import"]
        if below:
            noted = attributes[row] if isinstance(attributes[row], dict) else {}
            key = index.phases[row], str(names[row]), text(noted.get("caller"))
            found[key] = found.get(key, 0) + _length(_covered(trace, below))
    return found


def _inside(stretches: Iterable[Stretch]) -> tuple[Inside, ...]:
    """Returns the stretches in steps that are one part, those between the same places as one."""
    sums: dict[tuple[str | None, str | None, bool], list[int]] = {}
    for stretch in stretches:
        sums.setdefault((stretch.after, stretch.before, stretch.last), []).append(stretch.duration_ns)
    found = [Inside(*key, sum(times), len(times)) for key, times in sums.items()]
    return tuple(sorted(found, key=lambda each: -each.duration_ns))


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
