"""What the peak of a device's memory was made of, from the allocator's figures and the tensor ledger.

The allocator says how high the peak was and in which span; the ledger says what was on
the device by then: tensors in the model, tensors that were read and not yet in it, and what a
conversion made of them while they were still there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from hftrace.analysis.ledger.dtypes import asked_dtype, loaded_as
from hftrace.analysis.ledger.tensors import Batch, take, tensor_batches
from hftrace.analysis.memory.composition import READING, TOLERANCE, Part
from hftrace.analysis.memory.devices import described_device, device_sizes
from hftrace.analysis.memory.holding import ELSEWHERE
from hftrace.analysis.memory.readings import device_readings
from hftrace.analysis.once import once
from hftrace.analysis.request import whole_model_device
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import integer
from hftrace.schema.model import Span
from hftrace.schema.trace import Trace

BEGINNING = ("instantiate", "warmup", "weights")
"""Phases before which a load puts nothing on a device."""


@dataclass(frozen=True)
class DevicePeak:
    """What torch's allocator had given out on one device at its peak during one load; bytes."""

    device: str
    load: int
    """Row of the load's span."""
    span: int
    """Row of the innermost span with the peak."""
    peak_bytes: int
    parts: list[Part]
    """They add up to the peak."""
    explained: float | None
    """Share of the rise since the load's start that is not ``rest``; None where nothing rose."""
    allocated_bytes: int | None
    """When the load ended."""
    reserved_bytes: int | None
    """What the allocator had taken from the device when the load ended."""
    memory_bytes: int | None
    outside_allocator_bytes: int | None
    """What was in use besides: CUDA's context, other libraries and processes."""

    @property
    def unused_bytes(self) -> int:
        """What the allocator kept for later when the load ended."""
        return max(0, (self.reserved_bytes or 0) - (self.allocated_bytes or 0))


class _Arrival(NamedTuple):
    """A tensor on its way to a device: bytes, and times of the trace."""

    bytes: int
    started_ns: int
    """When the first of its sources was read."""
    appeared_ns: int
    """When it had been read, at the latest when it was placed."""
    placed_ns: int
    converted: bool
    """Whether it was made of others, which are given back after it was placed."""

    def part(self, time_ns: int) -> int:
        """Returns the bytes of its sources that are there before all of them are.

        The ledger has the first and the last time: between them they are
        taken to come evenly.
        """
        if not self.started_ns < time_ns < self.appeared_ns:
            return 0
        return self.bytes * (time_ns - self.started_ns) // (self.appeared_ns - self.started_ns)


def device_peaks(trace: Trace, load_row: int) -> list[DevicePeak]:
    """Returns what the peak of each device was made of during a load, by device.

    Args:
        trace: The trace.
        load_row: Row of an outermost load.
    """
    load = trace.spans[load_row]
    peaks = device_sizes(load.device_peak_bytes)
    return [
        _device_peak(trace, load_row, load, device, peak)
        for device, peak in sorted(peaks.items())
        if peak > 0
    ]


@once
def highest_device_peaks(trace: Trace) -> list[DevicePeak]:
    """Returns what the memory of each device was made of at its peak, in the load that had most there."""
    highest: dict[str, DevicePeak] = {}
    for row in span_index(trace).load_rows:
        for peak in device_peaks(trace, row):
            known = highest.get(peak.device)
            if known is None or peak.peak_bytes > known.peak_bytes:
                highest[peak.device] = peak
    return [highest[device] for device in sorted(highest)]


def _device_peak(trace: Trace, load_row: int, load: Span, device: str, peak: int) -> DevicePeak:
    row = _innermost(trace, load_row, device, peak)
    before = min(peak, _before(trace, load_row, load, device))
    parts = [Part("before", "before the load", before, device)] if before else []
    span = trace.spans[row]
    if span.phase == "warmup":
        asked = "asked for at once by the loader's warm-up"
        parts.append(Part("warmup", asked, peak - before, device))
    else:
        parts += _from_ledger(trace, load, span, device, peak - before)
    rise = peak - before
    rest = peak - sum(part.bytes for part in parts)
    if rest > 0 and span.phase not in (*READING, "load", "warmup"):
        # A function that reads no weights gave this back before it returned: 5.8 initialises copies.
        at_end = device_sizes(span.device_allocated_bytes).get(device, peak)
        passing = max(0, min(rest, peak - at_end))
        name = (span.function or span.name).rpartition(".")[2]
        parts += [Part("temporary", f"temporary, in {name}", passing, device)] if passing else []
        rest -= passing
    if rest:
        parts.append(Part("rest", "not explained", rest, device))
    described = described_device(trace, device)
    return DevicePeak(
        device=device,
        load=load_row,
        span=row,
        peak_bytes=peak,
        parts=parts,
        explained=max(0.0, 1 - abs(rest) / rise) if rise > 0 else None,
        allocated_bytes=device_sizes(load.device_allocated_bytes).get(device),
        reserved_bytes=device_sizes(load.device_reserved_bytes).get(device),
        memory_bytes=integer(described.get("memory_bytes")),
        outside_allocator_bytes=integer(described.get("outside_allocator_bytes")),
    )


def _innermost(trace: Trace, row: int, device: str, peak: int) -> int:
    """Returns the deepest span on the load's thread that has the load's own peak, but for a trifle."""
    column = trace.spans.column("device_peak_bytes")
    index = span_index(trace)
    lanes = index.lanes
    least = (1 - TOLERANCE) * peak
    while True:
        below = [
            child
            for child in index.children[row]
            if lanes[child] == lanes[row] and device_sizes(column[child]).get(device, 0) >= least
        ]
        if not below:
            return row
        # The mark of a warm-up is within a trifle of that of the weights: the weights say more.
        row = max(below, key=lambda child: (index.phases[child] != "warmup", -child))


def _before(trace: Trace, load_row: int, load: Span, device: str) -> int:
    """Returns what was allocated on the device before the load put anything there."""
    index = span_index(trace)
    first = min(
        (index.starts[row] for row in index.walk_thread([load_row]) if index.phases[row] in BEGINNING),
        default=load.start_ns,
    )
    readings = device_readings(trace).get(load.pid, {}).get(device, [])
    return next((reading.allocated_bytes for reading in reversed(readings) if reading.time_ns <= first), 0)


# -- what the ledger says -----------------------------------------------------------------------------


def _from_ledger(trace: Trace, load: Span, span: Span, device: str, rise: int) -> list[Part]:
    """Returns tensors in the model and copies on their way, when the ledger has most until a span's end."""
    arrivals = [each for batch in tensor_batches(trace) for each in _arrivals(trace, batch, load, device)]
    inside = [each for each in arrivals if each.started_ns <= span.end_ns]
    if not inside:
        return []
    inside.sort(key=lambda each: each.appeared_ns)
    times = [each.appeared_ns for each in inside]
    sums = [0, *accumulate(each.bytes for each in inside)]
    gathered = [each for each in inside if each.converted and each.started_ns < each.appeared_ns]

    def held(time_ns: int, made: int) -> int:
        return sums[bisect_right(times, time_ns)] + made + sum(each.part(time_ns) for each in gathered)

    # Until all is there the sum only grows, but for what a conversion holds twice while it works.
    candidates = [(each.placed_ns, each.bytes) for each in inside if each.converted]
    candidates = [(time, made) for time, made in candidates if span.start_ns <= time <= span.end_ns]
    time, made = max([*candidates, (span.end_ns, 0)], key=lambda each: held(*each))
    placed = [each for each in inside if each.placed_ns <= time and not (made and each.placed_ns == time)]
    in_model = sum(each.bytes for each in placed)
    on_the_way = held(time, made) - in_model
    # The allocator rounds each tensor up to 512 bytes.
    rounding = rise - in_model - on_the_way
    small = 0 <= rounding <= 512 * len(inside)
    parts = [
        Part("parameters", "parameters and buffers of the model", in_model, device, len(placed)),
        Part("copies", "read or converted, not yet in the model", on_the_way, device),
        Part("rounding", "rounded up by the allocator", rounding if small else 0, device),
    ]
    return [part for part in parts if part.bytes]


def _arrivals(trace: Trace, batch: Batch, load: Span, device: str) -> Iterable[_Arrival]:
    """Yields the tensors of a batch that a load puts on a device."""
    tensor_class = batch.tensor_class
    if batch.rank != load.rank or tensor_class.provenance in ELSEWHERE or tensor_class.kind == "unused":
        return
    # ``cuda`` without a number is the first device; a model that was not finished is where it was asked.
    here = tensor_class.device in (device, device.partition(":")[0])
    if not here and not (tensor_class.device is None and whole_model_device(trace) == device):
        return
    column = trace.tensors.column
    asked = asked_dtype(trace)
    names = ("bytes", "stored_bytes", "read_start_ns", "read_end_ns", "placed_ns")
    for size, stored, begun, read, placed in zip(
        *(take(column(name), batch.rows) for name in names), strict=True
    ):
        if read is None and placed is None and (tensor_class.device is None or stored is not None):
            continue  # the load ended before its turn
        if size is None and tensor_class.stored_dtype is not None:
            size = loaded_as(stored or 0, tensor_class.stored_dtype, asked)[1]
        # What the model computes itself has no time of its own, and is small: it counts as there.
        done = placed if placed is not None else load.start_ns if read is None else load.end_ns + 1
        appeared = done if read is None else min(read, done)
        started = appeared if begun is None else min(begun, appeared)
        yield _Arrival(size or stored or 0, started, appeared, done, tensor_class.provenance == "converted")
