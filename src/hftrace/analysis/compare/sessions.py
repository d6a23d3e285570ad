"""The whole session of a run in a comparison: its wall time, and what it went into by name."""

from typing import Any, NamedTuple

from hftrace.analysis.time.session import Part, inside_ns, parts, session_bounds, session_wall_ns
from hftrace.schema.trace import Trace

LOADS = "load"
"""Kind of the part that all loads are together."""
AT_ONCE = "at_once"
"""Kind of the part that makes parts of several threads at one time add up to the wall time."""
UNEXPLAINED = "unexplained"
"""The same where parts are missing."""
PART_KEYS = ("kind", "name", "after", "before", "last", "status")
"""What makes a part of one session that of another."""


class SessionChange(NamedTuple):
    """A part of the sessions of two groups; ns."""

    part: Part
    """Which one; its own figures are of no run."""
    before_ns: int
    after_ns: int

    @property
    def difference_ns(self) -> int:
        """How much more the second one has."""
        return self.after_ns - self.before_ns


def session_ns(trace: Trace) -> int | None:
    """Returns the wall time of a program's session; None where the trace does not say.

    Around the load of ``hftrace load`` are the interpreter's start and hftrace itself: nobody's to compare.
    """
    if not session_bounds(trace).known or trace.header.get("command") == "load":
        return None
    return session_wall_ns(trace)


def session_parts(trace: Trace) -> dict[Part, int]:
    """Returns what a session went into, in ns: its loads together, and what lies outside of them by name.

    The parts add up to the wall time. Places are known by the last part of their path alone, so that one
    program in two directories is one program.
    """
    found = {_key(LOADS, "loads"): inside_ns(trace)}
    for part in parts(trace):
        key = _key(part.kind, part.name, part.place, _last(part.before), part.last, part.status)
        found[key] = found.get(key, 0) + part.duration_ns
    rest = session_wall_ns(trace) - sum(found.values())
    if rest < 0:
        found[_key(AT_ONCE, "at once on several threads")] = rest
    elif rest:
        found[_key(UNEXPLAINED, "not explained")] = rest
    return found


def session_changes(before: dict[Part, int], after: dict[Part, int]) -> list[SessionChange]:
    """Returns what two sessions went into, the largest difference first; empty where one is not known."""
    if not before or not after:
        return []
    keys = dict.fromkeys([*before, *after])
    changes = [SessionChange(key, before.get(key, 0), after.get(key, 0)) for key in keys]
    return sorted(changes, key=lambda change: -abs(change.difference_ns))


def part_facts(part: Part) -> dict[str, Any]:
    """Returns which part of a session it is, as plain JSON values."""
    return {name: getattr(part, name) for name in PART_KEYS}


def _key(
    kind: str,
    name: str,
    after: str | None = None,
    before: str | None = None,
    last: bool = False,
    status: str = "ok",
) -> Part:
    return Part(kind, name, after, before, last, 0, 1, status)


def _last(place: str | None) -> str | None:
    return None if place is None else place.replace("\\", "/").rpartition("/")[2]
