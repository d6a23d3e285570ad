"""Models that a program has let go of, and what the process held before and after.

When a model goes, nothing is read: what it held is freed in the midst of it. So the
memory before is the last reading until then, and the memory after is the lowest one
from then until the program is recorded to do something else, or until a second has passed.
Whatever else the program did meanwhile is in it.
"""

from __future__ import annotations

import bisect
from typing import Any, NamedTuple

from hftrace.analysis.memory.devices import device_sizes
from hftrace.analysis.memory.readings import DeviceReading, Reading, device_readings, host_readings
from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import load_names
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import integer
from hftrace.schema.trace import Trace

MOST_NS = 1_000_000_000
"""What is read later than this after a model was gone says little of it."""


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
    anonymous_before_bytes: int | None
    file_before_bytes: int | None
    anonymous_after_bytes: int | None
    file_after_bytes: int | None
    device_before_bytes: dict[str, int]
    """What torch's allocator had given out, by device, as far as it is known."""
    device_after_bytes: dict[str, int]

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


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else before - after


@once
def released(trace: Trace) -> list[Released]:
    """Returns the models that the program has let go of, in order of time."""
    index, attributes = span_index(trace), trace.spans.column("attributes")
    rows = [
        row
        for row, phase in enumerate(index.phases)
        if phase == "release" and "of_load" in _facts(attributes[row])
    ]
    if not rows:
        return []
    numbers = {name.span: name.number for name in load_names(trace)}
    begun: dict[int, list[tuple[int, int]]] = {}
    for row, phase in enumerate(index.phases):
        if phase != "collect":
            begun.setdefault(index.lanes[row].pid, []).append((index.starts[row], row))
    for starts in begun.values():
        starts.sort()
    found = []
    for row in sorted(rows, key=lambda row: (index.starts[row], row)):
        time, pid, load = index.starts[row], index.lanes[row].pid, integer(_facts(attributes[row])["of_load"])
        at = bisect.bisect_right(begun[pid], (time, len(index.phases)))
        following = begun[pid][at] if at < len(begun[pid]) else None
        until = time + MOST_NS if following is None else min(time + MOST_NS, following[0])
        before, after = _around(host_readings(trace).get(pid, []), time, until)
        devices = device_readings(trace).get(pid, {})
        held = {name: level for name, taken in devices.items() if (level := _level(taken, time)) is not None}
        # Devices are only asked at the edges of spans: they are where a load begins.
        next_facts = _facts(attributes[following[1]]) if following is not None else {}
        found.append(
            Released(
                index.ids[row],
                load,
                numbers.get(load) if load is not None else None,
                trace.spans[row].name,
                time,
                before.anonymous_bytes if before else None,
                before.file_bytes if before else None,
                after.anonymous_bytes if after else None,
                after.file_bytes if after else None,
                held,
                device_sizes(next_facts.get("device_allocated_start_bytes")),
            )
        )
    return found


def _facts(noted: Any) -> dict[str, Any]:
    return noted if isinstance(noted, dict) else {}


def _around(taken: list[Reading], time: int, until: int) -> tuple[Reading | None, Reading | None]:
    """Returns the last reading before a time, and the lowest from then until another."""
    times = [reading.time_ns for reading in taken]
    at, end = bisect.bisect_right(times, time), bisect.bisect_right(times, until)
    later = taken[at:end]
    lowest = min(later, key=lambda reading: reading.total_bytes) if later else None
    return (taken[at - 1] if at else None), lowest


def _level(taken: list[DeviceReading], time: int) -> int | None:
    """Returns what a device's allocator had given out when it was read last before a time."""
    at = bisect.bisect_right([reading.time_ns for reading in taken], time)
    return taken[at - 1].allocated_bytes if at else None
