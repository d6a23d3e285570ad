"""The whole session of a run in a comparison: its wall time, and what it went into by name."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hftrace.analysis.compare.places import Places, imports_of, paired, places_of, same_imports, short
from hftrace.analysis.time.session import (
    OUTSIDE,
    Part,
    inside_ns,
    parts,
    session_bounds,
    session_wall_ns,
    stretches,
)
from hftrace.schema.trace import Trace

ALL = Places()
"""The places of a run that is compared with no other."""

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


def session_parts(trace: Trace, places: Places = ALL) -> dict[Part, int]:
    """Returns what a session went into, in ns: its loads together, and what lies outside of them by name.

    The parts add up to the wall time.

    Args:
        trace: The trace.
        places: What its places in the program are called.
    """
    found = {_key(LOADS, "loads"): inside_ns(trace)}
    for part in parts(trace):
        if part.kind != OUTSIDE and part.duration_ns:  # that a model was let go of takes none
            name = places.imports.get(part.place or "", part.name) if part.kind == "import" else part.name
            key = _key(part.kind, name, places.called(part.place), status=part.status)
            found[key] = found.get(key, 0) + part.duration_ns
    for key, spent in _between(trace, places):
        found[key] = found.get(key, 0) + spent
    rest = session_wall_ns(trace) - sum(found.values())
    if rest < 0:
        found[_key(AT_ONCE, "at once on several threads")] = rest
    elif rest:
        found[_key(UNEXPLAINED, "not explained")] = rest
    return found


def _between(trace: Trace, places: Places) -> Iterator[tuple[Part, int]]:
    """Yields what lies in no span, from a place that all runs have to the next one.

    A call that only one run makes has its own time. It parts what lies around it in that run alone, and
    that is no difference.
    """
    found = stretches(trace)
    ends = [short(place) for each in found for place in (each.after, each.before)]
    since, until = list(ends), list(ends)
    # Whether there is nothing but the end behind a place, that others have.
    last = [False] * len(ends)
    for number in range(1, len(ends)):
        if not places.is_common(ends[number]):
            since[number] = since[number - 1]
    for number in reversed(range(len(ends))):
        if number == len(ends) - 1:
            last[number] = found[-1].last
        elif not places.is_common(ends[number]):
            until[number], last[number] = until[number + 1], last[number + 1]
    for number, each in enumerate(found):
        start, end = 2 * number, 2 * number + 1
        after, before, at_end = since[start], until[end], each.last or last[end]
        if not (places.is_common(after) and places.is_common(before)) or after is before is None:
            # There is none on this side: programs that have little in common keep their own places.
            after, before, at_end = ends[start], ends[end], each.last
        yield _key(OUTSIDE, "", places.called(after), places.called(before), at_end), each.duration_ns


def same_places(groups: Sequence[Sequence[Trace]], names: Sequence[str]) -> list[dict[int, Places]]:
    """Returns what the places of each run are called, by the run's ``id``: as the first run of all does.

    Args:
        groups: The runs of each group, the baseline's first.
        names: What the groups are called.
    """
    base = next((run for runs in groups for run in runs), None)
    if base is None:
        return [{} for _ in groups]
    known, imports = places_of(base), imports_of(base)
    taken = {place.name for place in known}
    common = set(taken)
    every: list[dict[int, Places]] = []
    for runs, group in zip(groups, names, strict=True):
        every.append({})
        for run in runs:
            own = places_of(run)
            pairs = paired(known, own)
            common &= set(pairs.values())
            # Where another line has this number in the first run, it is said whose it is.
            new = {
                place.name: f"{place.name} of {group}" if place.name in taken else place.name
                for place in own
                if place.name not in pairs
            }
            # How many imports those of one line are is chance, and depends on the version.
            called = {
                place: imports[pairs[place]][0]
                for place, found in imports_of(run).items()
                if pairs.get(place) in imports and same_imports(imports[pairs[place]], found)
            }
            every[-1][id(run)] = Places({**pairs, **new}, imports=called)
    shared = frozenset(common)
    return [{run: replace(places, common=shared) for run, places in each.items()} for each in every]


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
