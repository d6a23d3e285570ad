"""Exact peaks: from watermarks where there are any, from readings otherwise.

Readings come often and miss what is short; the kernel's watermarks say how high memory was and not when.
Where they disagree about the peak, the watermark is right.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hftrace.analysis.ledger.tensors import tensor_sums
from hftrace.analysis.memory.devices import device_sizes
from hftrace.analysis.memory.readings import Reading, between, host_readings
from hftrace.analysis.once import once
from hftrace.analysis.time.spans import span_index
from hftrace.schema.trace import Trace

SLACK = 0.005
"""A watermark that is this share above every reading lies between two of them; less is slack of counters."""
SLACK_BYTES = 1_000_000


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


class Peaks(NamedTuple):
    """The largest values seen; None where nothing was measured.

    With several ranks, these are the largest of any one process.
    """

    rss_bytes: int | None
    anonymous_bytes: int | None
    file_bytes: int | None
    device_bytes: dict[str, int]


def peak_of(
    trace: Trace, rows: Sequence[int], taken: list[Reading], bounds: tuple[int, int] | None = None
) -> Peak | None:
    """Returns the peak of a process in some of its spans.

    Args:
        trace: The trace.
        rows: Rows of these spans.
        taken: Readings of the process.
        bounds: From when to when readings count, in ns from the clock base; None counts all.
    """
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


@once
def memory_peaks(trace: Trace) -> Peaks:
    """Returns the peaks of a trace."""
    rows_of: dict[int | None, list[int]] = {}
    for row, pid in enumerate(trace.spans.column("pid")):
        rows_of.setdefault(pid, []).append(row)
    taken = host_readings(trace)
    peaks = (peak_of(trace, rows_of.get(pid, ()), taken.get(pid, [])) for pid in {*rows_of, *taken})
    every = [reading for each in taken.values() for reading in each]
    return Peaks(
        rss_bytes=max((peak.bytes for peak in peaks if peak is not None), default=None),
        anonymous_bytes=max((reading.anonymous_bytes for reading in every), default=None),
        file_bytes=max((reading.file_bytes for reading in every), default=None),
        device_bytes=_device_peaks(
            trace.spans.column("device_peak_bytes"),
            trace.spans.column("device_allocated_bytes"),
            trace.samples.column("device_allocated_bytes"),
        ),
    )


def _device_peaks(*columns: Iterable[dict[str, int] | None]) -> dict[str, int]:
    devices: dict[str, int] = {}
    for column in columns:
        for values in column:
            for device, size in device_sizes(values).items():
                devices[device] = max(devices.get(device, 0), size)
    return dict(sorted(devices.items()))


@once
def unmeasured_devices(trace: Trace) -> list[str]:
    """Returns the devices that tensors went to and whose memory nobody measured: it is unknown, and not 0."""
    measured = {name for name, size in memory_peaks(trace).device_bytes.items() if size}
    used = {
        tensor_class.device
        for tensor_class in tensor_sums(trace)
        if tensor_class.device not in (None, "cpu", "meta") and tensor_class.kind != "unused"
    }
    return sorted(name for name in used if name and name not in measured and f"{name}:0" not in measured)
