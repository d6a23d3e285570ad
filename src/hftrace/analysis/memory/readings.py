"""Memory over time: samples, which come often, and edges of spans, which are exact, in one series.

Every curve and every largest value that is shown comes from here, so that no
screen has two figures for one thing.
"""

import bisect
from typing import Any, NamedTuple, TypeVar

from hftrace.analysis.memory.devices import device_sizes
from hftrace.analysis.once import once
from hftrace.schema.trace import Trace

Taken = TypeVar("Taken", "DeviceReading", "DriverReading")


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
    """What torch's allocator had of one device at one time, in bytes.

    ``reserved_bytes`` includes what is allocated.
    """

    time_ns: int
    allocated_bytes: int
    reserved_bytes: int


class DriverReading(NamedTuple):
    """What the driver says is in use of one device: by all processes, in bytes."""

    time_ns: int
    used_bytes: int


@once
def host_readings(trace: Trace) -> dict[int | None, list[Reading]]:
    """Returns, by process, its samples and the edges of its spans, in order of time.

    A sample that does not say its process counts for each of them; None is
    the key where nothing says any.
    """
    found: dict[int | None, list[tuple[int, int, int, int | None]]] = {}
    columns = ("time_ns", "pid", "rss_anon_bytes", "rss_file_bytes", "rss_shmem_bytes")
    for time, pid, anonymous, file, shared in zip(
        *(trace.samples.column(name) for name in columns), strict=True
    ):
        if anonymous is not None and file is not None:
            found.setdefault(pid, []).append((time, anonymous, file, shared or 0))
    for edge in (
        ("start_ns", "pid", "rss_anon_start_bytes", "rss_file_start_bytes"),
        ("end_ns", "pid", "rss_anon_bytes", "rss_file_bytes"),
    ):
        for time, pid, anonymous, file in zip(*(trace.spans.column(name) for name in edge), strict=True):
            if anonymous is not None and file is not None:
                found.setdefault(pid, []).append((time, anonymous, file, None))
    unnamed = found.pop(None, [])
    for pid in (set(trace.spans.column("pid")) or {None}) if unnamed else ():
        found.setdefault(pid, [])
    return {pid: _in_order([*unnamed, *taken]) for pid, taken in found.items()}


def _in_order(taken: list[tuple[int, int, int, int | None]]) -> list[Reading]:
    taken.sort(key=lambda item: item[0])
    result: list[Reading] = []
    last = next((shared for _, _, _, shared in taken if shared is not None), 0)
    for time, anonymous, file, shared in taken:
        last = last if shared is None else shared
        result.append(Reading(time, anonymous, file, last))
    return result


@once
def device_readings(trace: Trace) -> dict[int | None, dict[str, list[DeviceReading]]]:
    """Returns what the allocator had over time, by process and device: samples, and the ends of spans.

    The driver's figures are no part of it: they count other processes and CUDA's own context, and are there
    long before a load asks for any memory. A sample that does not say its process counts for each of them.
    """
    found: dict[int | None, dict[str, list[DeviceReading]]] = {}

    def add(pid: int | None, time: int, allocated: Any, reserved: Any) -> None:
        held = device_sizes(reserved)
        for device, size in device_sizes(allocated).items():
            reading = DeviceReading(time, size, max(size, held.get(device, size)))
            found.setdefault(pid, {}).setdefault(device, []).append(reading)

    sizes = ("pid", "device_allocated_bytes", "device_reserved_bytes")
    for table, when in ((trace.samples, "time_ns"), (trace.spans, "end_ns")):
        for time, pid, allocated, reserved in zip(
            *(table.column(name) for name in (when, *sizes)), strict=True
        ):
            add(pid, time, allocated, reserved)
    return _by_process(trace, found)


@once
def driver_readings(trace: Trace) -> dict[int | None, dict[str, list[DriverReading]]]:
    """Returns what the driver said was in use over time, by the process that was sampled and by device."""
    found: dict[int | None, dict[str, list[DriverReading]]] = {}
    columns = (trace.samples.column(name) for name in ("time_ns", "pid", "device_used_bytes"))
    for time, pid, used in zip(*columns, strict=True):
        for device, size in device_sizes(used).items():
            found.setdefault(pid, {}).setdefault(device, []).append(DriverReading(time, size))
    return _by_process(trace, found)


def _by_process(
    trace: Trace, found: dict[int | None, dict[str, list[Taken]]]
) -> dict[int | None, dict[str, list[Taken]]]:
    """Returns readings in order; those that say no process count for each of them."""
    unnamed = found.pop(None, {})
    for pid in (set(trace.spans.column("pid")) or {None}) if unnamed else ():
        for device, points in unnamed.items():
            found.setdefault(pid, {}).setdefault(device, []).extend(points)
    return {
        pid: {device: sorted(points) for device, points in sorted(devices.items())}
        for pid, devices in found.items()
    }


def between(taken: list[Reading], start_ns: int, end_ns: int) -> list[Reading]:
    """Returns the readings from ``start_ns`` to ``end_ns``, both included."""
    first = bisect.bisect_left(taken, start_ns, key=lambda reading: reading.time_ns)
    last = bisect.bisect_right(taken, end_ns, key=lambda reading: reading.time_ns)
    return taken[first:last]
