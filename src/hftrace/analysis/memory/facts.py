"""What is said of the memory of a trace, as data: levels, the peak, what it was made of, what was kept."""

from __future__ import annotations

from typing import Any

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import tensor_sums
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.peaks import Peak
from hftrace.analysis.memory.usage import ProcessMemory, State, process_memory
from hftrace.analysis.time.spans import span_index
from hftrace.schema.trace import Trace


def peak_time_ns(trace: Trace, process: ProcessMemory, peak: Peak) -> int | None:
    """Returns when a peak was, as well as is known: at a reading, else where the tensor ledger puts it."""
    made = peak_composition(trace) if peak.between_readings else None
    if made is not None and made.time_ns is not None and made.peak_bytes == peak.bytes:
        return made.time_ns
    return peak.time_ns


def peak_span(trace: Trace, peak: Peak) -> int | None:
    """Returns the row of the span that a peak was in: the one that its composition was worked out for."""
    made = peak_composition(trace)
    if made is not None and made.span is not None and made.peak_bytes == peak.bytes:
        return made.span
    return peak.span


def composition_facts(trace: Trace) -> dict[str, Any] | None:
    """Returns what the peak was made of as plain JSON values; None where it is not known."""
    made = peak_composition(trace)
    if made is None:
        return None
    ids = span_index(trace).ids
    return {
        "load": ids[made.load],
        "span": None if made.span is None else ids[made.span],
        "time_ns": made.time_ns,
        "peak_bytes": made.peak_bytes,
        "start_bytes": made.start_bytes,
        "explained": made.explained,
        "overstated_bytes": made.overstated_bytes,
        "parts": [part._asdict() for part in made.parts],
    }


def device_peak_facts(trace: Trace) -> list[dict[str, Any]]:
    """Returns what each device's peak was made of as plain JSON values, in bytes."""
    ids = span_index(trace).ids
    return [
        {
            "device": peak.device,
            "load": ids[peak.load],
            "span": ids[peak.span],
            "peak_bytes": peak.peak_bytes,
            "explained": peak.explained,
            "overstated_bytes": peak.overstated_bytes,
            "parts": [part._asdict() for part in peak.parts],
            "allocated_bytes": peak.allocated_bytes,
            "reserved_bytes": peak.reserved_bytes,
            "unused_bytes": peak.unused_bytes,
            "memory_bytes": peak.memory_bytes,
            "outside_allocator_bytes": peak.outside_allocator_bytes,
        }
        for peak in highest_device_peaks(trace)
    ]


def memory_facts(trace: Trace) -> dict[str, Any] | None:
    """Returns the memory of the main process for the summary, as plain JSON values.

    Bytes, and ns from the clock base; ``returned``, ``peak`` and what came after the load are absolute, and
    ``..._above_start`` are differences. None where nothing was measured.
    """
    process = process_memory(trace)[0] if process_memory(trace) else None
    if process is None or not process.states:
        return None

    def values(state: State) -> dict[str, int | None]:
        return {
            "total_bytes": state.total_bytes,
            "anonymous_bytes": state.anonymous_bytes,
            "file_bytes": state.file_bytes,
        }

    peak = process.load_peak
    result: dict[str, Any] = {
        "start": values(process.states[0]),
        "peak_bytes": peak.bytes if peak else None,
        "peak_time_ns": peak_time_ns(trace, process, peak) if peak else None,
        "peak_between_samples": peak.between_readings if peak else None,
        "peak_above_start_bytes": process.peak_above_start_bytes,
        "kept_bytes": kept_bytes(trace),
        "after": [],
        "composition": composition_facts(trace),
        "device_peaks": device_peak_facts(trace),
    }
    for state in process.states[1:]:
        if state.name == "returned":
            result["returned"] = values(state)
            result["returned_above_start"] = values(process.above_start(state))
        elif state.name.startswith("after "):
            result["after"].append(
                {
                    "phase": state.name.removeprefix("after "),
                    **values(state),
                    "above_start": values(process.above_start(state)),
                }
            )
    return result


def kept_bytes(trace: Trace) -> int | None:
    """Returns the bytes that the load kept in host memory: of the model's tensors there, else by the process.

    None where neither is known.
    """
    placed = sum(
        total.bytes
        for tensor_class, total in tensor_sums(as_loaded(trace)).items()
        if tensor_class.device == "cpu" and tensor_class.provenance not in (None, "tied", "unused")
    )
    if placed:
        return placed
    process = process_memory(trace)[0] if process_memory(trace) else None
    returned = process.state("returned") if process is not None else None
    if process is None or returned is None:
        return None
    return process.above_start(returned).total_bytes
