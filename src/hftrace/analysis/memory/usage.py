"""Memory of each loading process over time, its exact peak, and how much the load added."""

import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hftrace.analysis.memory.devices import device_sizes
from hftrace.analysis.memory.peaks import SLACK, SLACK_BYTES, Peak, peak_of
from hftrace.analysis.memory.readings import (
    DeviceReading,
    DriverReading,
    Reading,
    between,
    device_readings,
    driver_readings,
    host_readings,
)
from hftrace.analysis.once import once
from hftrace.analysis.time.spans import asked_after, span_index
from hftrace.schema.trace import Trace


class State(NamedTuple):
    """Resident memory in bytes at one moment that a person asks about; None where it was not read."""

    name: str
    """``start``, ``returned``, ``after PHASE``, ``peak`` or ``peak afterwards``."""
    time_ns: int | None
    total_bytes: int | None
    anonymous_bytes: int | None
    file_bytes: int | None


class ProcessMemory(NamedTuple):
    """What is known about the memory of one loading process. Times are ns from the clock base."""

    rank: int
    pid: int
    readings: list[Reading]
    devices: dict[str, list[DeviceReading]]
    """What torch's allocator had, by device."""
    device_peaks: dict[str, int]
    """Exact peak by device, in bytes, where the allocator kept one; else its largest reading."""
    driver: dict[str, list[DriverReading]]
    """What the driver said was in use, of all processes, by device; never to be used for the allocator's."""
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
    loads = [row for row in index.load_rows if index.lanes[row][:2] == (rank, pid)]
    first_load = min((index.starts[row] for row in loads), default=None)
    after = [
        row
        for row in roots
        if row in asked_after(trace) and (first_load is None or index.starts[row] >= first_load)
    ]
    after.sort(key=lambda row: (index.starts[row], row))
    taken = host_readings(trace).get(pid, [])
    devices = device_readings(trace).get(pid, {})
    in_loads = list(index.walk(loads))
    load_peak = peak_of(trace, in_loads, taken, _bounds(trace, loads)) if loads else None
    return ProcessMemory(
        rank=rank,
        pid=pid,
        readings=taken,
        devices=devices,
        device_peaks=_device_peaks(trace, rows, devices),
        driver=driver_readings(trace).get(pid, {}),
        peak=peak_of(trace, rows, taken),
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


def _device_peaks(
    trace: Trace, rows: Iterable[int], devices: dict[str, list[DeviceReading]]
) -> dict[str, int]:
    column = trace.spans.column("device_peak_bytes")
    result = {name: max(reading.allocated_bytes for reading in points) for name, points in devices.items()}
    for row in rows:
        for device, size in device_sizes(column[row]).items():
            result[device] = max(size, result.get(device, size))
    return dict(sorted(result.items()))


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
    later = peak_of(trace, list(index.walk(after)), taken, _bounds(trace, after)) if after else None
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
