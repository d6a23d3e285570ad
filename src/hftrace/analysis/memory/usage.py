"""Memory of each loading process over time, its exact peak, and how much the load added.

Three sources are laid over each other: samples, which come often and miss what
is short; edges of spans, which are exact and rare; and the kernel's watermarks,
which say how high and not when. Where they disagree about the peak, the
watermark is right.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hftrace.analysis.memory.peaks import device_sizes
from hftrace.analysis.once import once
from hftrace.analysis.time.spans import span_index
from hftrace.schema.model import Trace
from hftrace.schema.vocabulary import MEMORY_PHASES

SLACK = 0.005
"""A watermark that is this share above every reading lies between two of them; less is slack of counters."""
SLACK_BYTES = 1_000_000
LOAD_SHARE = 2 / 3
"""The least part of a chart's width that belongs to the loads, whatever the imports took."""
MAX_PANELS = 4


class Reading(NamedTuple):
    """Resident memory of one process at one time, in bytes.

    Shared memory is known to samples alone: an edge of a span has the value of the sample before it.
    """

    time_ns: int
    anonymous_bytes: int
    file_bytes: int
    shared_bytes: int

    @property
    def total_bytes(self) -> int:
        """All resident memory."""
        return self.anonymous_bytes + self.file_bytes + self.shared_bytes


class DeviceReading(NamedTuple):
    """Memory of one device at one time, in bytes; ``reserved_bytes`` includes what is allocated."""

    time_ns: int
    allocated_bytes: int
    reserved_bytes: int


class Peak(NamedTuple):
    """The most resident memory of a process.

    ``time_ns`` is when the largest reading in the innermost span with this peak was taken: exact where
    ``between_readings`` is False, else the best that is known.
    """

    bytes: int
    time_ns: int | None
    span: int | None
    """Row of the innermost span that the peak was in."""
    exact: bool
    """Whether a watermark says so; False where there are only readings."""
    read_bytes: int | None
    """The largest reading."""

    @property
    def between_readings(self) -> bool:
        """Whether no reading comes near the peak."""
        if self.read_bytes is None:
            return True
        return self.read_bytes < self.bytes - max(SLACK_BYTES, SLACK * self.bytes)


class State(NamedTuple):
    """Resident memory in bytes at one moment that a person asks about; None where it was not read."""

    name: str
    """``start``, ``returned``, ``after PHASE``, ``peak`` or ``peak afterwards``."""
    time_ns: int | None
    total_bytes: int | None
    anonymous_bytes: int | None
    file_bytes: int | None


@dataclass(frozen=True)
class ProcessMemory:
    """What is known about the memory of one loading process. Times are ns from the clock base."""

    rank: int
    pid: int
    readings: list[Reading]
    devices: dict[str, list[DeviceReading]]
    device_peaks: dict[str, int]
    """Exact peak by device, in bytes, where the allocator kept one; else the largest reading."""
    peak: Peak | None
    """The peak of everything that was traced."""
    load_peak: Peak | None
    """The peak of the loads alone."""
    states: list[State]
    """The first is the start of the first load; without a load there is none."""
    start_ns: int
    end_ns: int
    busy: list[tuple[int, int]]
    """When loads and what follows them ran, in order of time and without overlap."""

    def state(self, name: str) -> State | None:
        """Returns the state of this name, None where there is none."""
        return next((state for state in self.states if state.name == name), None)

    def above_start(self, state: State) -> State:
        """Returns a state with the values of the start taken away; what either lacks is None."""
        start = self.states[0]
        return State(
            state.name,
            state.time_ns,
            _difference(state.total_bytes, start.total_bytes),
            _difference(state.anonymous_bytes, start.anonymous_bytes),
            _difference(state.file_bytes, start.file_bytes),
        )

    @property
    def peak_above_start_bytes(self) -> int | None:
        """How far the peak of the loads lies above their start."""
        if not self.states or self.load_peak is None:
            return None
        return _difference(self.load_peak.bytes, self.states[0].total_bytes)


def _difference(value: int | None, start: int | None) -> int | None:
    return None if value is None or start is None else value - start


@once
def process_memory(trace: Trace) -> list[ProcessMemory]:
    """Returns the loading processes of a trace, by rank; the main one is the first."""
    index = span_index(trace)
    rows = index.load_rows or index.roots
    found = sorted({(index.lanes[row].rank, index.lanes[row].pid) for row in rows})
    main = index.main_lane
    if main is not None:
        found.sort(key=lambda key: (key != (main.rank, main.pid), key))
    return [_process(trace, rank, pid) for rank, pid in found]


def _process(trace: Trace, rank: int, pid: int) -> ProcessMemory:
    index = span_index(trace)
    rows = [row for row, lane in enumerate(index.lanes) if lane.pid == pid and lane.rank == rank]
    roots = [row for row in rows if index.parents[row] is None]
    loads = [row for row in roots if index.phases[row] == "load"]
    first_load = min((index.starts[row] for row in loads), default=None)
    after = [
        row
        for row in roots
        if index.phases[row] in MEMORY_PHASES and (first_load is None or index.starts[row] >= first_load)
    ]
    after.sort(key=lambda row: (index.starts[row], row))
    taken = readings(trace, pid)
    devices = device_readings(trace, pid)
    in_loads = list(index.walk(loads))
    load_peak = _peak(trace, in_loads, taken, _bounds(trace, loads)) if loads else None
    return ProcessMemory(
        rank=rank,
        pid=pid,
        readings=taken,
        devices=devices,
        device_peaks=_device_peaks(trace, rows, devices),
        peak=_peak(trace, rows, taken, None),
        load_peak=load_peak,
        states=_states(trace, loads, after, taken, load_peak),
        start_ns=min((index.starts[row] for row in roots), default=0),
        end_ns=max((index.ends[row] for row in roots), default=0),
        busy=_busy([(index.starts[row], index.ends[row]) for row in (*loads, *after)]),
    )


def _bounds(trace: Trace, rows: Sequence[int]) -> tuple[int, int]:
    index = span_index(trace)
    return min(index.starts[row] for row in rows), max(index.ends[row] for row in rows)


def _busy(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end >= start:
            merged.append((start, end))
    return merged


def readings(trace: Trace, pid: int) -> list[Reading]:
    """Returns the samples of a process and the edges of its spans, in order of time."""
    found: list[tuple[int, int, int, int | None]] = []
    columns = ("time_ns", "pid", "rss_anon_bytes", "rss_file_bytes", "rss_shmem_bytes")
    for time, owner, anonymous, file, shared in zip(
        *(trace.samples.column(name) for name in columns), strict=True
    ):
        if (owner is None or owner == pid) and anonymous is not None and file is not None:
            found.append((time, anonymous, file, shared or 0))
    for edge in (
        ("start_ns", "pid", "rss_anon_start_bytes", "rss_file_start_bytes"),
        ("end_ns", "pid", "rss_anon_bytes", "rss_file_bytes"),
    ):
        for time, owner, anonymous, file in zip(*(trace.spans.column(name) for name in edge), strict=True):
            if owner == pid and anonymous is not None and file is not None:
                found.append((time, anonymous, file, None))
    found.sort(key=lambda item: item[0])
    result: list[Reading] = []
    last = next((shared for _, _, _, shared in found if shared is not None), 0)
    for time, anonymous, file, shared in found:
        last = last if shared is None else shared
        result.append(Reading(time, anonymous, file, last))
    return result


def device_readings(trace: Trace, pid: int) -> dict[str, list[DeviceReading]]:
    """Returns memory over time by device: samples of a process, and the ends of its spans.

    Where the allocator was not asked, what the driver says is used stands for both values.
    """
    result: dict[str, list[DeviceReading]] = {}

    def add(time: int, allocated: Any, reserved: Any) -> None:
        held = device_sizes(reserved)
        for device, size in device_sizes(allocated).items():
            reading = DeviceReading(time, size, max(size, held.get(device, size)))
            result.setdefault(device, []).append(reading)

    samples = trace.samples
    columns = ("time_ns", "pid", "device_allocated_bytes", "device_reserved_bytes", "device_used_bytes")
    for time, owner, allocated, reserved, used in zip(
        *(samples.column(name) for name in columns), strict=True
    ):
        if owner is None or owner == pid:
            add(time, allocated if device_sizes(allocated) else used, reserved)
    ends = ("end_ns", "pid", "device_allocated_bytes", "device_reserved_bytes")
    for time, owner, allocated, reserved in zip(*(trace.spans.column(name) for name in ends), strict=True):
        if owner == pid:
            add(time, allocated, reserved)
    for points in result.values():
        points.sort()
    return dict(sorted(result.items()))


def _device_peaks(
    trace: Trace, rows: Iterable[int], devices: dict[str, list[DeviceReading]]
) -> dict[str, int]:
    column = trace.spans.column("device_peak_bytes")
    result = {name: max(reading.allocated_bytes for reading in points) for name, points in devices.items()}
    for row in rows:
        for device, size in device_sizes(column[row]).items():
            result[device] = max(size, result.get(device, size))
    return dict(sorted(result.items()))


def _peak(
    trace: Trace, rows: Sequence[int], taken: list[Reading], bounds: tuple[int, int] | None
) -> Peak | None:
    """Returns the peak of the spans in ``rows``; ``bounds`` limits the readings that count."""
    if bounds is not None:
        taken = between(taken, *bounds)
    largest = max(taken, key=lambda reading: reading.total_bytes, default=None)
    read_bytes = largest.total_bytes if largest is not None else None
    marks = trace.spans.column("rss_peak_bytes")
    mark = max((marks[row] for row in rows if marks[row] is not None), default=None)
    if mark is None or (read_bytes is not None and read_bytes >= mark + max(SLACK_BYTES, SLACK * mark)):
        # No watermark, or one that died with the process before it was read.
        if largest is None or read_bytes is None:
            return None
        return Peak(read_bytes, largest.time_ns, None, False, read_bytes)
    index = span_index(trace)
    # A span whose edges were not read has its parent's watermark: a bound, and no place.
    edges = trace.spans.column("rss_anon_start_bytes")
    same = [row for row in rows if marks[row] == mark]
    same = [row for row in same if edges[row] is not None] or same
    inner = min(same, key=lambda row: (index.ends[row] - index.starts[row], -index.starts[row], -row))
    within = between(taken, index.starts[inner], index.ends[inner])
    highest = max(within, key=lambda reading: reading.total_bytes, default=None)
    time = highest.time_ns if highest is not None else index.ends[inner]
    # Of a span that never ended, the kernel's figure died with the process: what stands there is a sample's.
    unread = trace.spans.column("rss_anon_bytes")[inner] is None
    return Peak(mark, time, inner, not (unread and mark == read_bytes), read_bytes)


def between(taken: list[Reading], start_ns: int, end_ns: int) -> list[Reading]:
    """Returns the readings from ``start_ns`` to ``end_ns``, both included."""
    first = bisect.bisect_left(taken, start_ns, key=lambda reading: reading.time_ns)
    last = bisect.bisect_right(taken, end_ns, key=lambda reading: reading.time_ns)
    return taken[first:last]


def _states(
    trace: Trace, loads: list[int], after: list[int], taken: list[Reading], load_peak: Peak | None
) -> list[State]:
    if not loads:
        return []
    spans, index = trace.spans, span_index(trace)

    def edge(name: str, row: int, end: bool) -> State:
        time = index.ends[row] if end else index.starts[row]
        ending = "" if end else "_start"
        anonymous = spans.column(f"rss_anon{ending}_bytes")[row]
        file = spans.column(f"rss_file{ending}_bytes")[row]
        if anonymous is None or file is None:
            return State(name, time, None, anonymous, file)
        return State(name, time, anonymous + file + _shared_at(taken, time), anonymous, file)

    first = min(loads, key=lambda row: (index.starts[row], row))
    last = max(loads, key=lambda row: (index.ends[row], row))
    states = [edge("start", first, False), edge("returned", last, True)]
    seen: dict[str, int] = {}
    for row in after:
        phase = index.phases[row]
        seen[phase] = seen.get(phase, 0) + 1
        name = f"after {phase}" + (f" {seen[phase]}" if seen[phase] > 1 else "")
        states.append(edge(name, row, True))
    if load_peak is not None:
        states.append(_at_peak("peak", load_peak, taken))
    later = _peak(trace, list(index.walk(after)), taken, _bounds(trace, after)) if after else None
    if later is not None and load_peak is not None and later.bytes > (1 + SLACK) * load_peak.bytes:
        states.append(_at_peak("peak afterwards", later, taken))
    return states


def _shared_at(taken: list[Reading], time_ns: int) -> int:
    position = bisect.bisect_right(taken, time_ns, key=lambda reading: reading.time_ns)
    return taken[position - 1].shared_bytes if position else 0


def _at_peak(name: str, peak: Peak, taken: list[Reading]) -> State:
    """Returns the peak as a state; its parts are known only where a reading was taken there."""
    if peak.time_ns is not None:
        for reading in between(taken, peak.time_ns, peak.time_ns):
            if abs(peak.bytes - reading.total_bytes) <= max(SLACK_BYTES, SLACK * peak.bytes):
                return State(name, peak.time_ns, peak.bytes, reading.anonymous_bytes, reading.file_bytes)
    return State(name, peak.time_ns, peak.bytes, None, None)


class Panel(NamedTuple):
    """A part of a chart with an axis of its own: ``cells`` columns from ``start_ns`` to ``end_ns``."""

    name: str
    """``all``, ``imports`` or ``load``."""
    start_ns: int
    end_ns: int
    zero_ns: int
    """The time that the axis counts from."""
    cells: int


def panels(process: ProcessMemory, cells: int) -> list[Panel]:
    """Divides ``cells`` columns among imports and loads; between two panels one column is left for a border.

    Loads get at least two thirds of the width. Loads that lie far apart have
    panels of their own, up to four in all. Returns an empty list where there is no time to draw.
    """
    start, end = process.start_ns, process.end_ns
    if end <= start or cells < 1:
        return []
    groups = [group for group in _groups(process.busy) if group[1] > group[0]]
    if not groups or cells < 12:
        return [Panel("all", start, end, start, cells)]
    lengths = [right - left for left, right in groups]
    before = groups[0][0] - start
    if len(groups) == 1 and lengths[0] >= LOAD_SHARE * (end - start):
        return [Panel("all", start, end, start, cells)]
    lead = round(0.02 * sum(lengths))  # the level before the load is what its rise starts from
    imports = 0
    if before > lead:
        # No wider than its share of the time, and never so narrow that it says nothing.
        imports = min(int(cells * (1 - LOAD_SHARE)) - 1, max(6, cells // 5))
    room = cells - imports - (1 if imports else 0) - (len(groups) - 1)
    least = min(10, room // len(groups))
    widths = [least + int((room - least * len(groups)) * length / sum(lengths)) for length in lengths]
    widths[max(range(len(groups)), key=lambda number: lengths[number])] += room - sum(widths)
    made = [Panel("imports", start, groups[0][0], start, imports)] if imports else []
    for (left, right), width in zip(groups, widths, strict=True):
        made.append(Panel("load", left - (lead if before or made else 0), right, left, width))
    return made


def _groups(busy: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins stretches that lie close together; more than fit beside each other become one."""
    if not busy:
        return []
    near = 0.25 * sum(end - start for start, end in busy)
    groups = [busy[0]]
    for start, end in busy[1:]:
        if start - groups[-1][1] <= near:
            groups[-1] = (groups[-1][0], end)
        else:
            groups.append((start, end))
    return groups if len(groups) < MAX_PANELS else [(busy[0][0], busy[-1][1])]
