"""A trace and what torch's profiler recorded beside it, in one file of Chrome's format, on one clock.

Torch's profiler has the clock of the wall, and we have one that only goes forward. Marks that the loading
process made in the profile, at its start and at its end, say how the two stand to one another.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from hftrace.analysis.values import integer
from hftrace.errors import HftraceError
from hftrace.export.chrome import Drawing, about_trace, origin_ns, write_events
from hftrace.export.chrome_events import Track, arguments
from hftrace.export.lanes import Timed, nested_by_time, pack
from hftrace.export.packing import packed
from hftrace.schema.trace import Trace

OWN_CATEGORY = "Trace"
"""Of the profiler's events about itself: when it began, and how long it ran."""
ARROWS = ("s", "t", "f")
"""Kinds of events that are ends of arrows: from a call to the kernel that it started."""


class Clock(NamedTuple):
    """How the profiler's clock stands to ours: by so much it is ahead, at two times of its own."""

    start_ns: int
    ahead_at_start_ns: int
    end_ns: int
    ahead_at_end_ns: int
    uncertainty_ns: int
    """How far apart the bounds are that the marks give."""

    def ours(self, theirs_ns: int) -> int:
        """Returns a time of the profiler by our clock."""
        passed, drifted = self.end_ns - self.start_ns, self.ahead_at_end_ns - self.ahead_at_start_ns
        since = theirs_ns - self.start_ns
        return theirs_ns - self.ahead_at_start_ns - (drifted * since // passed if passed else 0)


def write_merged(trace: Trace, profile: Path, target: str, stream: BinaryIO) -> None:
    """Writes a trace with what torch's profiler recorded beside it.

    Args:
        trace: The trace.
        profile: What the profiler wrote; beside it lie the marks, under the same name and ``.clock``.
        target: The file's name; one that ends in ``.gz`` is compressed.
        stream: Where it goes.

    Raises:
        HftraceError: The profile cannot be read, or has no marks.
    """
    try:
        document = json.loads(profile.read_text(encoding="utf-8"))
        marks = json.loads(profile.with_name(f"{profile.name}.clock").read_text(encoding="utf-8"))
        merged = _Profile(trace, document, marks)
        tracks = merged.tracks()
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise HftraceError(f"torch's profile cannot be read ({type(error).__name__}: {error})") from None
    numbers = itertools.count(1)
    drawing = Drawing(trace, numbers, "")
    about = {**about_trace(trace), "torch_profile": merged.about()}
    with packed(stream, target) as file:
        write_events(file, about, itertools.chain(drawing.events(), merged.events(tracks, numbers)))


class _Thread(NamedTuple):
    """What the profiler recorded of one of its threads: rows of its events."""

    nested: list[tuple[int, int, int]]
    crossing: list[list[Timed]]
    others: list[tuple[int, int]]
    """``(time, row)`` of what is no slice."""


class _Profile:
    """Events of the profiler as events of ours.

    Args:
        trace: The trace beside which it ran.
        document: What it wrote.
        marks: What the loading process knows of the marks in it.
    """

    def __init__(self, trace: Trace, document: dict[str, Any], marks: dict[str, Any]) -> None:
        self._events: list[dict[str, Any]] = [
            event for event in document["traceEvents"] if isinstance(event, dict)
        ]
        self._base_ns = int(document.get("baseTimeNanoseconds") or 0)
        self._mark = str(marks["name"])
        self._clock = self._aligned(marks["at_start"], marks["at_end"])
        self._clock_base_ns = integer(trace.header.get("clock_base_ns")) or 0
        self._origin_ns = origin_ns(trace)
        self._devices = document.get("deviceProperties")
        self._cut = self._left_out = self._merged = 0

    def _theirs(self, microseconds: Any) -> int:
        """Returns a time of the profile in ns, by its own clock."""
        return round(float(microseconds) * 1000) + self._base_ns

    def _time(self, event: dict[str, Any]) -> int:
        """Returns when an event was, in ns from the clock base of the trace."""
        return self._clock.ours(self._theirs(event["ts"])) - self._clock_base_ns

    def _aligned(self, *groups: list[list[int]]) -> Clock:
        """Returns how the two clocks stand to one another.

        A mark begins between two readings of our clock, and ends between two: each gives bounds.
        """
        found: dict[int, tuple[int, int]] = {}
        for event in self._events:
            name = str(event.get("name"))
            if event.get("ph") == "X" and name.startswith(f"{self._mark} "):
                start = self._theirs(event["ts"])
                found[int(name.rpartition(" ")[2])] = start, start + round(float(event["dur"]) * 1000)
        sides: list[tuple[int, int, int]] = []
        for group in groups:
            known = [
                (*found[before], before, inside, after) for before, inside, after in group if before in found
            ]
            if not known:
                raise ValueError("it has no marks of our clock")
            low = max(max(start - inside, end - after) for start, end, _, inside, after in known)
            high = min(min(start - before, end - inside) for start, end, before, inside, _ in known)
            sides.append((known[0][0], (low + high) // 2, abs(high - low)))
        (start, ahead, doubt), (end, later, more) = sides
        return Clock(start, ahead, end, later, max(doubt, more))

    def about(self) -> dict[str, Any]:
        """Returns what is to be known of the profile."""
        return {
            "events": self._merged,
            "left_out": self._left_out,
            "cut_slices": self._cut,
            "clock_uncertainty_ns": self._clock.uncertainty_ns,
            "clock_drift_ns": self._clock.ahead_at_end_ns - self._clock.ahead_at_start_ns,
            "devices": self._devices,
        }

    def tracks(self) -> dict[tuple[str, str], _Thread]:
        """Returns the events by the names of their processes and threads."""
        slices: dict[tuple[str, str], list[Timed]] = {}
        others: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for row, event in enumerate(self._events):
            kind, where = event.get("ph"), (str(event.get("pid")), str(event.get("tid")))
            if kind == "M" or str(event.get("name")).startswith(f"{self._mark} "):
                continue
            if event.get("cat") == OWN_CATEGORY or event.get("s") == "g":
                self._left_out += 1
            elif kind == "X":
                start = self._time(event)
                length = round(float(event.get("dur") or 0) * 1000)
                slices.setdefault(where, []).append((start, start + max(0, length), row))
            elif kind in (*ARROWS, "i", "C"):
                others.setdefault(where, []).append((self._time(event), row))
            else:
                self._left_out += 1
        found = {}
        for where in sorted({*slices, *others}):
            lengths = {row: end - start for start, end, row in slices.get(where, [])}
            nested, left = nested_by_time(slices.get(where, []))
            self._cut += sum(each.end_ns - each.start_ns < lengths[each.row] for each in nested)
            rows = [(each.start_ns, each.end_ns, each.row) for each in nested]
            found[where] = _Thread(rows, pack(left), others.get(where, []))
            self._merged += len(lengths) + len(others.get(where, []))
        return found

    def events(self, tracks: dict[tuple[str, str], _Thread], numbers: Iterator[int]) -> Iterator[str]:
        """Yields the events of a file.

        Args:
            tracks: As :meth:`tracks` returned them.
            numbers: Of processes, threads and asynchronous tracks, none of which are there twice.
        """
        processes: dict[str, int] = {}
        names = self._names()
        for (process, thread), held in tracks.items():
            number = processes.get(process)
            if number is None:
                number = processes[process] = next(numbers)
                whole = Track(number, number, self._origin_ns)
                name = names.get((process, None), "process")
                yield whole.about("process_name", {"name": f"torch.profiler: {name} ({process})"})
                yield whole.about("process_sort_index", {"sort_index": number})
            track = Track(number, next(numbers), self._origin_ns)
            yield track.about("thread_name", {"name": names.get((process, thread), thread)})
            yield from self._of_thread(track, held, numbers)

    def _of_thread(self, track: Track, held: _Thread, numbers: Iterator[int]) -> Iterator[str]:
        for start, end, row in held.nested:
            yield track.complete(start, end, *self._said(row))
        for timed in held.crossing:
            lane = next(numbers)
            for start, end, row in timed:
                category, name, values = self._said(row)
                yield track.begin(start, category, name, lane, values)
                yield track.end(end, category, name, lane)
        for time, row in held.others:
            event = self._events[row]
            category, name, _ = self._said(row)
            more: dict[str, Any] = {key: event[key] for key in ("id", "bp", "s", "args") if key in event}
            yield track.other(str(event["ph"]), time, category, name, more)

    def _said(self, row: int) -> tuple[str, str, str]:
        event = self._events[row]
        values = event.get("args")
        category = str(event.get("cat") or "torch")
        return category, str(event.get("name")), arguments(values if isinstance(values, dict) else {})

    def _names(self) -> dict[tuple[str, str | None], str]:
        """Returns what the profiler calls its processes and threads."""
        found: dict[tuple[str, str | None], str] = {}
        for event in self._events:
            values = event.get("args")
            if event.get("ph") == "M" and isinstance(values, dict) and values.get("name"):
                process, thread = str(event.get("pid")), str(event.get("tid"))
                if event.get("name") == "process_name":
                    found[process, None] = str(values["name"])
                elif event.get("name") == "thread_name":
                    found[process, thread] = str(values["name"])
        return found
