"""What the peak of a device's memory was made of, from the allocator's figures and the tensor ledger.

The allocator says how high the peak was and in which span; the ledger says what was on
the device by then: tensors in the model, tensors that were read and not yet in it, and what a
conversion or a quantisation made of them while they were still there. What the driver says is in use is
never part of it. Where the ledger has more than the allocator gave out, parts are cut to what fits, and
that is said.
"""

from __future__ import annotations

from typing import NamedTuple

from hftrace.analysis.memory.composition import READING, TOLERANCE, Part, fit_parts
from hftrace.analysis.memory.device_arrivals import BLOCK_BYTES, on_device
from hftrace.analysis.memory.devices import described_device, device_sizes
from hftrace.analysis.memory.readings import device_readings
from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.loads import trace_of_row
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import integer
from hftrace.schema.model import Span
from hftrace.schema.trace import Trace

BEGINNING = ("instantiate", "warmup", "weights")
"""Phases before which a load puts nothing on a device."""
ORDER = ("before", "warmup", "parameters", "unquantized", "copies", "scales", "rounding")
"""Parts as they are drawn."""


class DevicePeak(NamedTuple):
    """What torch's allocator had given out on one device at its peak during one load; bytes."""

    device: str
    load: int
    """Row of the load's span."""
    span: int
    """Row of the innermost span with the peak."""
    peak_bytes: int
    parts: list[Part]
    """They add up to the peak, and none is negative."""
    explained: float | None
    """Share of the rise since the load's start that is not ``rest``; None where nothing rose."""
    overstated_bytes: int
    """What the ledger has there more than the allocator gave out: parts were cut by that."""
    allocated_bytes: int | None
    """When the load ended."""
    reserved_bytes: int | None
    """What the allocator had taken from the device when the load ended."""
    memory_bytes: int | None
    outside_allocator_bytes: int | None
    """What was in use besides: CUDA's context, other libraries and processes."""

    @property
    def unused_bytes(self) -> int | None:
        """What the allocator kept for later when the load ended; None where it did not say."""
        if self.reserved_bytes is None or self.allocated_bytes is None:
            return None
        return max(0, self.reserved_bytes - self.allocated_bytes)


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
        for peak in _peaks_of(trace, row):
            known = highest.get(peak.device)
            if known is None or peak.peak_bytes > known.peak_bytes:
                highest[peak.device] = peak
    return [highest[device] for device in sorted(highest)]


def _peaks_of(trace: Trace, load_row: int) -> list[DevicePeak]:
    """Returns the peaks of a load by what was asked of that one, and by its tensors alone."""
    own = trace_of_row(trace, load_row)
    if own is trace:
        return device_peaks(trace, load_row)
    rows, ids = span_index(trace).row_of, span_index(own).ids
    found = device_peaks(own, span_index(own).row_of[span_index(trace).ids[load_row]])
    return [peak._replace(load=load_row, span=rows[ids[peak.span]]) for peak in found]


def _device_peak(trace: Trace, load_row: int, load: Span, device: str, peak: int) -> DevicePeak:
    row = _innermost(trace, load_row, device, peak)
    span = trace.spans[row]
    before = min(peak, _before(trace, load_row, load, device))
    rise = peak - before
    # The surest first: where they are more than the peak, what comes last is cut.
    if span.phase == "warmup":
        claims = [Part("warmup", "asked for at once by the loader's warm-up", rise, device)]
        guesses: list[Part] = []
    else:
        claims, guesses = _from_ledger(trace, load, span, device, before)
    claims.insert(1, Part("before", "before the load", before, device))
    overstated = max(0, sum(part.bytes for part in claims) - peak)
    parts, rest = fit_parts([*claims, *guesses], peak)
    if 0 < rest <= BLOCK_BYTES * sum(part.tensors or 0 for part in parts):
        parts.append(Part("rounding", "rounded up by the allocator", rest, device))
        rest = 0
    parts.sort(key=lambda part: ORDER.index(part.kind))
    if rest and span.phase not in (*READING, "load", "warmup"):
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
        explained=max(0.0, 1 - (rest + overstated) / rise) if rise > 0 else None,
        overstated_bytes=overstated,
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
    # What was there when a load began was read before it.
    session = trace.session if isinstance(trace, LoadTrace) else trace
    readings = device_readings(session).get(load.pid, {}).get(device, [])
    return next((reading.allocated_bytes for reading in reversed(readings) if reading.time_ns <= first), 0)


def _from_ledger(
    trace: Trace, load: Span, span: Span, device: str, before: int
) -> tuple[list[Part], list[Part]]:
    """Returns what the ledger says was there when it has most until a span's end, and what may have been."""
    found = on_device(trace, load, span, device)
    at_end = device_sizes(load.device_allocated_bytes).get(device)
    kept = 0
    if found.quantized_share and at_end is not None and load.status == "ok":
        # Scales and codes are no tensors of the ledger: they come with the weights that they belong to.
        kept = round(max(0, at_end - before - found.at_end) * found.quantized_share)
    claims = [
        Part("parameters", "parameters and buffers of the model", found.placed, device, found.tensors),
        Part("unquantized", "full precision, on its way to be quantised", found.unquantized, device),
        Part("copies", "read or converted, not yet in the model", found.copies, device),
    ]
    guesses = [
        Part(
            "parameters",
            "parameters and buffers of the model",
            found.timeless,
            device,
            found.timeless_tensors,
        ),
        Part("scales", "beside quantised weights: scales, codes", kept, device),
    ]
    return claims, guesses
