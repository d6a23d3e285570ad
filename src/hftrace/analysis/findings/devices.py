"""Rules about devices: what was moved after its load, what a load held there beside the model, and where."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.as_loaded import rows_since
from hftrace.analysis.findings.rules import (
    WORTH_NS,
    Finding,
    Fix,
    Where,
    first_few,
    rule,
    tensors_of,
    total_of,
    worst_names,
)
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.devices import described_device, device_sizes
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.time.session import parts
from hftrace.analysis.time.spans import span_index
from hftrace.schema.trace import Trace
from hftrace.units import byte_count

NOWHERE = (None, "meta", "disk")
MOST = 0.5
OVERSHOOT = 1.1
QUANTISING = 1.5
"""Times what a load needs in the end, from which what it held on its way is worth a word."""
LEAST_BYTES = 200_000_000
"""What no card of today runs out for."""
WAITING = ("unquantized", "copies")
"""Parts of a peak that are on their way into the model."""
QUANTISED_IN_TURN = (
    "Set HF_DEACTIVATE_ASYNC_LOAD=1 (5.x): tensors are then read one after the other, and quantised before "
    "the next. A checkpoint that is quantised already needs none of it."
)
RESIDENT_TWICE = 1.7
"""Times the model's bytes that a pool shared by host and device holds before it counts as twice."""


@rule(
    ("R06", "moved-after-load", "Most of what was loaded was moved to a device after its load."),
    concerns="time",
    severity="warning",
    of_session=True,
    at_end=True,
)
def moved_after_load(trace: Trace) -> Iterator[Finding]:
    """R06: a whole-model copy after a load that could have put its tensors there itself."""
    was, now = trace.at_return.column("device"), trace.tensors.column("device")
    sizes, kinds = trace.at_return.column("bytes"), trace.at_return.column("kind")
    names = trace.tensors.column("name")
    moved: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, later in rows_since(trace):
        place = now[later]
        if was[row] == "cpu" and place not in (*NOWHERE, "cpu"):
            moved[place].append((row, later))
    if not moved:
        return
    loaded = sum(size or 0 for size, kind in zip(sizes, kinds, strict=True) if kind != "unused")
    device, rows = max(moved.items(), key=lambda item: sum(sizes[row] or 0 for row, _ in item[1]))
    size = sum(sizes[row] or 0 for row, _ in rows)
    if size <= MOST * loaded:
        return
    moving = ("to", device.partition(":")[0])  # a module has a method by the name of each kind of device
    calls = [
        part for part in parts(trace) if part.kind == "surgery" and part.name.rpartition(".")[2] in moving
    ]
    # Of several calls nobody can say which has moved what.
    spent = calls[0].duration_ns if len(calls) == 1 and calls[0].times == 1 else None
    by = f", by {calls[0].name} in {units.duration(spent)}" if spent else ""
    rate = f" ({units.rate(size / (spent / 1e9))})" if spent else ""
    yield Finding(
        "R06",
        "moved-after-load",
        f"Loaded on the CPU, moved to {device} afterwards",
        f"{units.count(len(rows), 'tensor')}, {byte_count(size)}, went to {device} after their load{by}{rate}"
        ": each is read into the host's memory first, and copied from there one by one.",
        f'Ask the load for it: device_map="{device}" copies each tensor as it is read, on several threads in '
        "5.x, and no copy stays behind on the host.",
        cost_ns=spent,
        cost_bytes=None if spent else size,
        view="timeline",
        severity="warning" if (spent or 0) >= WORTH_NS else "info",
        fix=Fix({"device_map": device}),
        numbers={"tensors": len(rows), "moved_bytes": size, "spent_ns": spent, "device": device},
        where=Where(tensors=first_few(names[later] for _, later in rows)),
    )


@rule(
    (
        "R10",
        "warm-up-overshoot",
        "The loader's warm-up reserved much more of a device than the model takes there.",
    ),
    concerns="memory",
    severity="warning",
)
def warm_up_overshoot(trace: Trace) -> Iterator[Finding]:
    """R10: a warm-up that asked for more than the model that it was for."""
    index = span_index(trace)
    reserved = trace.spans.column("device_reserved_bytes")
    before = trace.spans.column("device_allocated_bytes")
    warmed: dict[str, int] = {}
    for row, phase in enumerate(index.phases):
        if phase == "warmup":
            held = device_sizes(before[row])
            for device, size in device_sizes(reserved[row]).items():
                warmed[device] = max(warmed.get(device, 0), size - held.get(device, 0))
    planned = _bytes_by_device(trace)
    for device, size in warmed.items():
        need = planned.get(device, 0)
        if need and size > OVERSHOOT * need and size - need > LEAST_BYTES:
            yield Finding(
                "R10",
                "warm-up-overshoot",
                f"The warm-up reserved {byte_count(size)} of {device} for {byte_count(need)}",
                f"Before the first tensor torch had {byte_count(size)} of {device} reserved; the model has "
                f"{byte_count(need)} of tensors there.",
                "Upgrade transformers; where memory is short, keep it from the device with max_memory, or "
                f'load on the CPU and move the model with .to("{device}").',
                cost_bytes=size - need,
                numbers={"device": device, "reserved_bytes": size, "planned_bytes": need},
            )


def _bytes_by_device(trace: Trace) -> dict[str, int]:
    """Returns what a model has on each device, in bytes; tied tensors once."""
    found: dict[str, int] = defaultdict(int)
    columns = (trace.tensors.column(name) for name in ("device", "bytes", "same_as", "provenance"))
    for device, size, same, provenance in zip(*columns, strict=True):
        if same is None and provenance != "tied" and device is not None:
            found[device] += size or 0
    return found


@rule(
    (
        "R11",
        "quantise-staging",
        "Full-precision tensors filled a device, or memory, while they waited to be quantised.",
    ),
    concerns="memory",
    severity="warning",
)
def quantise_staging(trace: Trace) -> Iterator[Finding]:
    """R11: a load that quantises, and held much more of a device, or of memory, than the model takes."""
    methods = [
        str(got["method"])
        for load in model_loads(trace)
        if isinstance(got := load.got.get("quantization"), dict) and got.get("method")
    ]
    if not methods:
        return
    yield from _staged_in_memory(trace, methods[0])
    for peak in highest_device_peaks(trace):
        final = peak.allocated_bytes or 0
        waiting = sum(part.bytes for part in peak.parts if part.kind in WAITING)
        most = max(peak.peak_bytes, peak.reserved_bytes or 0)
        if not final or not waiting or most <= QUANTISING * final or most - final < LEAST_BYTES:
            continue
        yield Finding(
            "R11",
            "quantise-staging",
            f"{byte_count(most)} of {peak.device} for a model of {byte_count(final)}",
            f"At the peak {byte_count(waiting)} of tensors in full precision were on {peak.device}, on their "
            f"way to be quantised with {methods[0]}; "
            + (
                f"when the load ended torch had {byte_count(peak.reserved_bytes)} reserved there."
                if peak.reserved_bytes is not None
                else "what torch had reserved is not known."
            ),
            QUANTISED_IN_TURN,
            cost_bytes=most - final,
            fix=_in_turn(trace),
            numbers={
                "device": peak.device,
                "peak_bytes": peak.peak_bytes,
                "reserved_bytes": peak.reserved_bytes,
                "allocated_bytes": final,
                "waiting_bytes": waiting,
            },
        )


def _staged_in_memory(trace: Trace, method: str) -> Iterator[Finding]:
    """Yields the same of the host's memory, for a model that stays there."""
    made = peak_composition(trace)
    final = _bytes_by_device(trace).get("cpu", 0)
    if made is None or trace.outcome.get("status", "ok") != "ok":
        return
    waiting = sum(part.bytes for part in made.parts if part.kind in WAITING)
    if not final or waiting < LEAST_BYTES or waiting <= QUANTISING * final:
        return
    yield Finding(
        "R11",
        "quantise-staging",
        f"{byte_count(waiting)} in full precision for a model of {byte_count(final)}",
        f"At the peak {byte_count(waiting)} of tensors in full precision were in memory, on their way to be "
        f"quantised with {method}: {units.share(waiting / (made.peak_bytes - made.start_bytes))} of what the "
        "load needed.",
        QUANTISED_IN_TURN,
        cost_bytes=waiting,
        fix=_in_turn(trace),
        numbers={"waiting_bytes": waiting, "final_bytes": final},
    )


def _in_turn(trace: Trace) -> Fix | None:
    """Returns how tensors are read one after the other, where the loader has threads for them."""
    has_threads = trace.environment.get("generation") == "D"
    return Fix(environment={"HF_DEACTIVATE_ASYNC_LOAD": "1"}) if has_threads else None


@rule(
    ("R16", "double-residency", "Host and device share one memory, and the weights are in it twice."),
    concerns="memory",
    severity="warning",
)
def double_residency(trace: Trace) -> Iterator[Finding]:
    """R16: an integrated device, whose memory is the host's, with mapped files beside the copies."""
    if trace.outcome.get("status", "ok") != "ok":
        return
    held_on = _bytes_by_device(trace)
    for peak in highest_device_peaks(trace):
        if described_device(trace, peak.device).get("integrated") is not True:
            continue
        there = held_on.get(peak.device, 0)
        when, mapped, allocated = _most_of_both(trace, peak.device)
        held = mapped + allocated
        if there < LEAST_BYTES or held <= RESIDENT_TWICE * there:
            continue
        yield Finding(
            "R16",
            "double-residency",
            f"{byte_count(held)} of one memory for {byte_count(there)} of weights",
            f"{peak.device} has no memory of its own. When {when} was done {byte_count(mapped)} of files "
            f"were mapped and in RAM, beside {byte_count(allocated)} of torch's.",
            "Read the files instead of mapping them, disable_mmap=True (5.x), or drop them from the page "
            "cache after the load (posix_fadvise with POSIX_FADV_DONTNEED).",
            cost_bytes=held - there,
            fix=Fix({"disable_mmap": True}) if _can_read_whole(trace) else None,
            numbers={"mapped_bytes": mapped, "allocated_bytes": allocated, "model_bytes": there},
        )


def _most_of_both(trace: Trace, device: str) -> tuple[str, int, int]:
    """Returns after which call a load had most of files mapped and of a device allocated, and both in bytes.

    Read at the ends of spans, where both were read at once. What was mapped when the load began, the
    libraries' code above all, is none of its files.
    """
    index, spans = span_index(trace), trace.spans
    before = min((spans.column("rss_file_start_bytes")[row] or 0 for row in index.load_rows), default=0)
    columns = ("name", "rss_file_bytes", "device_allocated_bytes")
    most = ("", 0, 0)
    for name, file, on_devices in zip(*map(spans.column, columns), strict=True):
        if file is not None and on_devices is not None:
            found = (str(name), max(0, file - before), device_sizes(on_devices).get(device, 0))
            most = max(most, found, key=lambda each: each[1] + each[2])
    return most


def _can_read_whole(trace: Trace) -> bool:
    """Returns whether ``from_pretrained`` of the trace's version takes disable_mmap, as 5.20 does."""
    version = re.match(r"(\d+)\.(\d+)", str(trace.environment.get("transformers") or ""))
    return version is not None and (int(version[1]), int(version[2])) >= (5, 20)


@rule(
    ("R19", "buffers-on-meta", "Buffers have a shape and no data when the session ends."),
    concerns="weights",
    severity="error",
    at_end=True,
)
def buffers_on_meta(trace: Trace) -> Iterator[Finding]:
    """R19: buffers that are in no checkpoint, of a model that was built on meta and filled by hand."""
    total = total_of(trace, kind="buffer", device="meta", offload=None)
    if not total.count or trace.outcome.get("status", "ok") != "ok":
        return
    if total_of(trace, kind="parameter", device="meta", offload=None).count:
        return  # nothing, or not all, was put into it: that is told
    yield Finding(
        "R19",
        "buffers-on-meta",
        f"{units.count(total.count, 'buffer')} left on the meta device",
        f"{byte_count(total.bytes)} have a shape and no data, where all parameters have theirs: "
        f"{worst_names(trace, 'buffer', device='meta', whole=True)}. What a module computes for itself when "
        "it is built, and no checkpoint has, is lost on meta.",
        "Build the model with accelerate's init_empty_weights(), which leaves buffers on the CPU, and not "
        "with torch.device('meta'); or compute them again.",
        cost_bytes=total.bytes,
        numbers={"buffers": total.count},
        where=Where(tensors=tensors_of(trace, "buffer", device="meta", offload=None)),
    )


@rule(
    ("R19", "several-devices", "Parameters are on several devices, and no device_map was given."),
    concerns="asked",
    severity="warning",
)
def several_devices(trace: Trace) -> Iterator[Finding]:
    """R19: a model that is on more than one device although nobody asked for that."""
    columns = ("kind", "name", "device", "offload", "bytes")
    kinds, names, devices, offloads, sizes = map(trace.tensors.column, columns)
    for load in model_loads(trace):
        if not load.got or {"device_map", "tp_plan", "quantization_config"} & set(load.keywords):
            continue
        if load.request.get("what", "model") != "model" or load.got.get("device_map"):
            continue
        places: dict[str, list[int]] = defaultdict(list)
        for row in load.rows:
            if kinds[row] == "parameter" and offloads[row] is None and devices[row] not in NOWHERE:
                places[devices[row]].append(row)
        if len(places) < 2:
            continue
        largest, *others = sorted(places, key=lambda place: -sum(sizes[row] or 0 for row in places[place]))
        rows = [row for place in others for row in places[place]]
        yield Finding(
            "R19",
            "several-devices",
            f"{units.count(len(rows), 'parameter')} not on {largest} with the others",
            f"No device_map was given. {byte_count(sum(sizes[row] or 0 for row in rows))} came out on "
            f"{' and '.join(sorted(others))}, the rest on {largest}: the first use of both together fails.",
            f'Move the whole, model.to("{largest}"), and look for a torch.device(...) block or '
            "torch.set_default_device around the load, or a device in the model's own __init__.",
            cost_bytes=sum(sizes[row] or 0 for row in rows),
            numbers={"parameters": len(rows), "devices": len(places)},
            where=Where(spans=[load.span], tensors=first_few(names[row] for row in rows)),
        )
