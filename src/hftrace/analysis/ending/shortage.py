"""What an out-of-memory error was about: which exception came first, and how full the device was.

The words are the allocators' own, of torch 2.1 and newer (c10/cuda/CUDACachingAllocator.cpp,
c10/xpu/XPUCachingAllocator.cpp, aten/src/ATen/mps/MPSAllocator.mm); the trace's own figures come
first, as they are exact.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hftrace.analysis.ending.prediction import predicted_device_bytes
from hftrace.analysis.memory.devices import described_device, device_sizes
from hftrace.analysis.time.whose import ended_load, ended_outside, failed_loads
from hftrace.analysis.values import integer
from hftrace.schema.trace import Trace

MEMORY_ERRORS = ("MemoryError", "OutOfMemoryError")
MEMORY_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "out of memory",
    "Cannot allocate memory",
    "Unable to allocate",
)
"""What allocators say in an exception of a more general type."""
BACKENDS = {"CUDA": "cuda", "HIP": "cuda", "XPU": "xpu", "MPS": "mps"}
"""Names in messages, and the device types that torch has for them; ROCm's is CUDA's."""
UNITS = {"bytes": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    UNITS[f"{_letter}iB"] = 1024**_power
    UNITS[f"{_letter}B"] = 1024**_power  # MPS writes MB and counts in powers of two
_SIZE = r"([\d.]+) ([KMGT]?i?B|bytes)"
_ASKED = re.compile(rf"Tried to allocate {_SIZE}")
_FREE = re.compile(rf"of which {_SIZE} is free|{_SIZE} free;")
_TOTAL = re.compile(rf"total capacity of {_SIZE}|{_SIZE} total capacity|max allowed: {_SIZE}")
_ALLOWED = re.compile(rf"{_SIZE} allowed")
_ALLOCATED = re.compile(rf"{_SIZE} is allocated by PyTorch|{_SIZE} already allocated|MPS allocated: {_SIZE}")
_INDEX = re.compile(r"\bGPU (\d+)|\bon device (\d+)|\bXPU (\d+)")


class Cause(NamedTuple):
    """The exception that made a load fail, where the one that it ended with is another."""

    row: int
    """Of the span that it left."""
    type: str
    message: str


def is_memory_error(error: Any) -> bool:
    """Returns whether an outcome's ``error`` says that memory, of the CPU or of a device, ran out."""
    if not isinstance(error, Mapping):
        return False
    kind = str(error.get("type") or "").rpartition(".")[2]
    message = str(error.get("message") or "")
    return kind in MEMORY_ERRORS or any(words in message for words in MEMORY_MESSAGES)


def device_type(error: Any) -> str | None:
    """Returns the type of the device whose memory ran out; None for the CPU's."""
    if not isinstance(error, Mapping):
        return None
    message = str(error.get("message") or "")
    found = next((kind for name, kind in BACKENDS.items() if name in message), None)
    return found or ("cuda" if "OutOfMemoryError" in str(error.get("type") or "") else None)


def caught_cause(trace: Trace) -> Cause | None:
    """Returns the exception that a failed load caught before it ended with another one.

    5.x goes on when a conversion fails, and raises at the end an error that
    does not say why. An out-of-memory error is the cause wherever it was caught.
    """
    error = trace.outcome.get("error")
    if trace.outcome.get("status") != "error" or not isinstance(error, Mapping) or is_memory_error(error):
        return None
    if ended_outside(trace):
        return None
    spans, last = trace.spans, ended_load(trace)
    if last is None:
        last = next(
            (failed.row for failed in reversed(failed_loads(trace)) if failed.status == "error"), None
        )
    if last is None:
        return None
    begin, end = spans[last].start_ns, spans[last].end_ns
    columns = (spans.column(name) for name in ("status", "phase", "start_ns", "end_ns", "attributes"))
    causes: list[tuple[int, Cause]] = []
    for row, (status, phase, start, ended, attributes) in enumerate(zip(*columns, strict=True)):
        words = attributes.get("error") if status == "error" else None
        if not isinstance(words, str) or not begin <= start <= end:
            continue
        kind, _, message = words.partition(": ")
        caught = phase == "convert" and attributes.get("caught") is True
        if caught or is_memory_error({"type": kind, "message": message}):
            causes.append((ended, Cause(row, kind, message)))
    return min(causes, key=lambda each: each[0])[1] if causes else None


def device_shortage(trace: Trace, error: Mapping[str, Any], row: int | None = None) -> dict[str, Any] | None:
    """Returns how full a device was when an allocation on it failed.

    Args:
        trace: The trace.
        error: ``type`` and ``message`` of the out-of-memory error.
        row: Of the span that the error left, where it is known.

    Returns:
        ``device``; and in bytes, null if unknown: ``memory_bytes`` (the
        device's), ``asked_bytes`` (by the allocation that failed), ``free_bytes``,
        ``allowed_bytes`` (``set_per_process_memory_fraction``), ``allocated_bytes`` and
        ``reserved_bytes`` (torch's allocator), ``outside_allocator_bytes`` (the
        rest of what is in use: CUDA's context, other libraries and processes),
        ``predicted_bytes`` (see
        :func:`~hftrace.analysis.ending.prediction.predicted_device_bytes`).
        None where the memory was the CPU's.
    """
    kind = device_type(error)
    if kind is None:
        return None
    message = str(error.get("message") or "")
    index = next((group for found in _INDEX.finditer(message) for group in found.groups() if group), "0")
    name = f"{kind}:{index}"
    described = described_device(trace, name)
    allocated, reserved = _held(trace, name, row)
    memory = integer(described.get("memory_bytes")) or _size(_TOTAL, message)
    free = _size(_FREE, message)
    outside = None
    if memory is not None and free is not None and reserved is not None:
        # At the moment of the failure, and not when the load was over.
        outside = max(0, memory - free - reserved)
    if outside is None:
        outside = integer(described.get("outside_allocator_bytes"))
    return {
        "device": name,
        "memory_bytes": memory,
        "asked_bytes": _size(_ASKED, message),
        "free_bytes": free,
        "allowed_bytes": _size(_ALLOWED, message),
        "allocated_bytes": _size(_ALLOCATED, message) if allocated is None else allocated,
        "reserved_bytes": reserved,
        "outside_allocator_bytes": outside,
        "predicted_bytes": predicted_device_bytes(trace, name),
    }


def _held(trace: Trace, name: str, row: int | None) -> tuple[int | None, int | None]:
    """Returns what the allocator had allocated and reserved: at the span's end, else at the most."""
    spans = trace.spans
    allocated, reserved = spans.column("device_allocated_bytes"), spans.column("device_reserved_bytes")
    statuses = spans.column("status")
    rows = [row] if row is not None else [each for each in range(len(spans)) if statuses[each] == "error"]
    found = [
        (size, device_sizes(reserved[each]).get(name))
        for each in rows
        if (size := device_sizes(allocated[each]).get(name)) is not None
    ]
    return max(found, key=lambda pair: pair[0], default=(None, None))


def _size(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    if found is None:
        return None
    number, unit = (group for group in found.groups() if group is not None)
    try:
        return int(float(number) * UNITS[unit])
    except (ValueError, KeyError):
        return None
