"""Models that a program has let go of, and what the process held before and after.

When a model goes, nothing is read: what it held is freed in the midst of it. So the
memory before is the last reading until then, and the memory after is the lowest one
from then until it is freed. Whatever else the program did meanwhile is in it.

What came back is told of one model only where it was seen of that one: the memory was read
after it was freed, and before the next one went. Models without such a reading between them are
told together. That a model is freed shows in one of two ways: the thread that let go of it has
begun or ended something else, or the process has stopped shrinking. Where neither was seen before the
program was recorded to do something else, or ended, or within a second, the memory after is not known;
nor is it where another thread was loading meanwhile.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

from hftrace.analysis.memory.devices import device_sizes
from hftrace.analysis.memory.holding import ELSEWHERE
from hftrace.analysis.memory.peaks import SLACK, SLACK_BYTES
from hftrace.analysis.memory.readings import DeviceReading, Reading, device_readings, host_readings
from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import load_groups, load_names
from hftrace.analysis.time.reading import merge
from hftrace.analysis.time.session import session_bounds
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import integer
from hftrace.schema.trace import Trace

MOST_NS = 1_000_000_000
"""What is read this long before a model goes, or after it was gone, says little of it."""
QUIET_NS = 50_000_000
"""A process that has not shrunk for so long frees no model any more: 160 MB take some 20 ms, and a thread may
have to wait for a processor in the midst of it."""


class Memory(NamedTuple):
    """What a process held before and after models went; None is unknown."""

    anonymous_before_bytes: int | None = None
    file_before_bytes: int | None = None
    anonymous_after_bytes: int | None = None
    file_after_bytes: int | None = None
    device_before_bytes: dict[str, int] = {}  # noqa: RUF012 (a default of a named tuple, which nobody changes)
    """What torch's allocator had given out, by device, as far as it is known."""
    device_after_bytes: dict[str, int] = {}  # noqa: RUF012 (the same)

    @property
    def anonymous_bytes(self) -> int | None:
        """Anonymous memory that came back; negative where the process grew meanwhile."""
        return _difference(self.anonymous_before_bytes, self.anonymous_after_bytes)

    @property
    def file_bytes(self) -> int | None:
        """The same of file-backed memory."""
        return _difference(self.file_before_bytes, self.file_after_bytes)

    @property
    def device_bytes(self) -> dict[str, int]:
        """The same by device, of those whose memory is known before and after."""
        after = self.device_after_bytes
        return {name: size - after[name] for name, size in self.device_before_bytes.items() if name in after}

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        came_back = {"anonymous_bytes": self.anonymous_bytes, "file_bytes": self.file_bytes}
        return {**self._asdict(), **came_back, "device_bytes": self.device_bytes}


class Released(NamedTuple):
    """A model that is gone; None is unknown."""

    span: int
    load: int | None
    """The span of the load that it is from."""
    number: int | None
    """The place of that load among the session's."""
    name: str
    """Class of the model."""
    time_ns: int
    weights_bytes: int | None
    """What its parameters and buffers took of the host's memory, as far as they are known to be there."""


class Release(NamedTuple):
    """Models that went between two readings of memory, most often one; and these readings."""

    models: tuple[Released, ...]
    memory: Memory

    @property
    def weights_bytes(self) -> int | None:
        """What the weights of all of them took of the host's memory."""
        sizes = [model.weights_bytes for model in self.models]
        return None if None in sizes else sum(filter(None, sizes))

    @property
    def is_more_than_the_weights(self) -> bool:
        """Whether more came back than the weights took: something else was freed as well."""
        weights = self.weights_bytes
        parts = self.memory.anonymous_bytes, self.memory.file_bytes
        came_back = sum(max(0, size) for size in parts if size is not None)
        return weights is not None and came_back > weights + max(SLACK_BYTES, SLACK * weights)


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else before - after


@once
def releases(trace: Trace) -> list[Release]:
    """Returns the models that the program has let go of, in order of time, with what came back of each.

    Those of one process between which nothing was read that says what came back of each are one release.
    """
    index, attributes = span_index(trace), trace.spans.column("attributes")
    by_process: dict[int, list[int]] = {}
    for row, phase in enumerate(index.phases):
        if phase == "release" and "of_load" in _facts(attributes[row]):
            by_process.setdefault(index.lanes[row].pid, []).append(row)
    if not by_process:
        return []
    numbers = _numbers(trace)
    weights = _weights(trace)
    found = []
    for pid, rows in by_process.items():
        rows.sort(key=lambda row: (index.starts[row], row))
        process = _Process(trace, pid)
        for group, until in process.groups(rows):
            models = []
            for row in group:
                load = integer(_facts(attributes[row])["of_load"])
                number = numbers.get(load) if load is not None else None
                size = weights.get(load) if load is not None else None
                name = trace.spans[row].name
                models.append(Released(index.ids[row], load, number, name, index.starts[row], size))
            found.append(Release(tuple(models), process.memory(group, until)))
    return sorted(found, key=lambda each: (each.models[0].time_ns, each.models[0].span))


def facts(trace: Trace) -> dict[str, Any]:
    """Returns the models as plain JSON values, and those that went together.

    Of a model that went together with others no figures are known: the group has them.
    """
    models: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
    for release in releases(trace):
        spans = [model.span for model in release.models]
        together = len(spans) > 1
        memory = Memory() if together else release.memory
        models += [{**model._asdict(), "together": together, **memory.to_json()} for model in release.models]
        if together:
            groups.append(
                {"spans": spans, "weights_bytes": release.weights_bytes, **release.memory.to_json()}
            )
    models.sort(key=lambda model: (model["time_ns"], model["span"]))
    return {"released": models, "released_together": groups}


class _Process:
    """What is known of one process around the models that went in it.

    Args:
        trace: The trace.
        pid: The process.
    """

    def __init__(self, trace: Trace, pid: int) -> None:
        self._index = index = span_index(trace)
        self._attributes = trace.spans.column("attributes")
        self._readings = host_readings(trace).get(pid, [])
        self._times = [reading.time_ns for reading in self._readings]
        self._devices = device_readings(trace).get(pid, {})
        rows = [
            row
            for row, phase in enumerate(index.phases)
            if index.lanes[row].pid == pid and phase not in ("collect", "release")
        ]
        loads = [row for row in index.load_rows if index.lanes[row].pid == pid]
        self._loading = merge((index.starts[row], index.ends[row]) for row in loads)
        """When anything was loaded, in order."""
        bounds = session_bounds(trace)
        # What the interpreter frees at its end is no model's.
        self._ended = bounds.end_ns if bounds.known else None
        self._begun = sorted((index.starts[row], row) for row in rows)
        self._edges: dict[int, list[int]] = {}
        """When each thread began and ended something."""
        for row in rows:
            edges = self._edges.setdefault(index.lanes[row].thread, [])
            edges += index.starts[row], index.ends[row]
        for edges in self._edges.values():
            edges.sort()

    def groups(self, rows: Sequence[int]) -> list[tuple[list[int], int | None]]:
        """Returns releases in order, those together that nothing tells apart, and when the next one is."""
        starts, lanes = self._index.starts, self._index.lanes
        groups: list[list[int]] = []
        last: dict[int, int] = {}
        for row in rows:
            if not groups or self._until_freed(last, starts[row]):
                groups.append([])
                last = {}
            groups[-1].append(row)
            last[lanes[row].thread] = starts[row]
        following = [starts[group[0]] for group in groups[1:]]
        return list(zip(groups, [*following, None], strict=True))

    def memory(self, group: Sequence[int], until: int | None) -> Memory:
        """Returns what the process held before and after the models of a group went.

        Args:
            group: Rows of the releases.
            until: When the next model went.
        """
        starts = self._index.starts
        first, last = starts[group[0]], starts[group[-1]]
        at = bisect.bisect_right(self._begun, (last, len(self._index.phases)))
        following = self._begun[at] if at < len(self._begun) else None
        ends = [last + MOST_NS, until, self._ended, following[0] if following is not None else None]
        end = min(time for time in ends if time is not None)
        threads = {self._index.lanes[row].thread: starts[row] for row in group}
        later = [] if last - first > MOST_NS else self._until_freed(threads, end)
        if not later:
            return Memory()
        before = self._last_before(first)
        after = min(later, key=lambda reading: reading.total_bytes)
        if self._loads_between(first if before is None else before.time_ns, after.time_ns):
            return Memory()
        levels = {name: _level(taken, first) for name, taken in self._devices.items()}
        # Devices are only asked at the edges of spans: they are where a load begins.
        next_facts = _facts(self._attributes[following[1]]) if following is not None else {}
        began_next = following is not None and following[0] == end
        return Memory(
            before.anonymous_bytes if before else None,
            before.file_bytes if before else None,
            after.anonymous_bytes,
            after.file_bytes,
            {name: level for name, level in levels.items() if level is not None},
            device_sizes(next_facts.get("device_allocated_start_bytes")) if began_next else {},
        )

    def _until_freed(self, last: dict[int, int], until: int) -> list[Reading]:
        """Returns what was read from when models went until they were freed; nothing if that was not seen.

        Args:
            last: When each thread let go of the last of them.
            until: What is read later is not looked at.
        """
        later = self._between(max(last.values()), until)
        free = [self._next_edge(thread, time) for thread, time in last.items()]
        done = [time for time in free if time is not None]
        numbers = [_settled(later)]
        if len(done) == len(free):
            numbers.append(next((at for at, each in enumerate(later) if each.time_ns >= max(done)), None))
        number = min((number for number in numbers if number is not None), default=None)
        return [] if number is None else later[: number + 1]

    def _loads_between(self, since: int, until: int) -> bool:
        """Says whether anything was loaded meanwhile, which takes memory as a model's end gives it back."""
        at = bisect.bisect_right(self._loading, since, key=lambda stretch: stretch[1])
        return at < len(self._loading) and self._loading[at][0] < until

    def _next_edge(self, thread: int, time: int) -> int | None:
        """Returns when a thread began or ended something next: what it was freeing is free then."""
        edges = self._edges.get(thread, [])
        at = bisect.bisect_right(edges, time)
        return edges[at] if at < len(edges) else None

    def _between(self, since: int, until: int) -> list[Reading]:
        return self._readings[
            bisect.bisect_right(self._times, since) : bisect.bisect_right(self._times, until)
        ]

    def _last_before(self, time: int) -> Reading | None:
        at = bisect.bisect_right(self._times, time)
        return self._readings[at - 1] if at and self._times[at - 1] >= time - MOST_NS else None


def _settled(readings: Sequence[Reading]) -> int | None:
    """Returns the number of the reading by which a process has not shrunk for long enough; None for none."""
    since: int | None = None
    most = 0
    for number, reading in enumerate(readings):
        if since is None or reading.total_bytes < most - SLACK_BYTES:
            since, most = reading.time_ns, reading.total_bytes
        most = max(most, reading.total_bytes)
        if reading.time_ns - since >= QUIET_NS:
            return number
    return None


def _numbers(trace: Trace) -> dict[int, int]:
    """Returns the place of each load among the session's, by its span; those in one are of that one."""
    index = span_index(trace)
    return {
        index.ids[row]: name.number
        for name, rows in zip(load_names(trace), load_groups(trace), strict=True)
        for row in index.walk(rows)
        if index.phases[row] == "load"
    }


def _weights(trace: Trace) -> dict[int, int]:
    """Returns what the parameters and buffers of each load take of the host's memory, by the load's span."""
    found: dict[int, int] = {}
    columns = ("load", "kind", "provenance", "device", "offload", "bytes")
    for load, kind, provenance, device, offload, size in zip(
        *(trace.tensors.column(name) for name in columns), strict=True
    ):
        if load is None or kind == "unused":
            continue
        here = device == "cpu" and offload is None and provenance not in ELSEWHERE
        found[load] = found.get(load, 0) + (size or 0 if here else 0)
    return found


def _facts(noted: Any) -> dict[str, Any]:
    return noted if isinstance(noted, dict) else {}


def _level(taken: list[DeviceReading], time: int) -> int | None:
    """Returns what a device's allocator had given out when it was read last before a time."""
    at = bisect.bisect_right([reading.time_ns for reading in taken], time)
    return taken[at - 1].allocated_bytes if at else None
