"""Rules about memory: what ran out, what is larger than it need be, what is not there yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hftrace.analysis.findings.rules import Finding, Where, first_few, rule
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.devices import device_sizes
from hftrace.analysis.time.moved import untouched_bytes
from hftrace.analysis.time.ready import readiness
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import checkpoint_bytes, resident_share_after, weight_files
from hftrace.schema.trace import Trace
from hftrace.units import byte_count, duration

if TYPE_CHECKING:
    from hftrace.analysis.ending.death import FullDevice

UNUSED_BYTES = 100_000_000
UNUSED_SHARE = 0.1
"""What an allocator may keep for later, in bytes and as a share, before a finding speaks of it."""
OUTSIDE_SHARE = 0.2
"""The share of a device that others than torch may take before a finding names them first."""


@rule(
    ("R25", "killed-at-limit", "The load was killed when memory ran out."),
    ("R25", "out-of-memory", "An allocation failed, on the CPU or on a device."),
    concerns="ending",
    severity="error",
    of_session=True,
)
def killed_at_limit(trace: Trace) -> Iterator[Finding]:
    """R25: memory ran out."""
    if trace.outcome.get("status", "ok") == "ok":
        return
    from hftrace.analysis.ending.death import death_of  # not for a load that ended well

    end = death_of(trace)
    at_limit = end.status == "killed" and end.near_limit
    if end.killer not in ("memory-limit", "kernel-oom", "out-of-memory") and not at_limit:
        return
    if end.killer in ("limit-unwatched", "timeout", "crash", "exit"):
        return  # full memory is how it was, and not why it ended
    if end.device is not None:
        yield _device_full(trace, end.device)
        return
    used, limit = end.held_against_limit, end.limit_bytes
    parts = []
    if used is not None and limit is not None:
        how = f"had {byte_count(used)} mapped of {byte_count(limit)} that {end.limit_kind} allows"
        if end.address_bytes is None:
            how = f"held {byte_count(used)} of {byte_count(limit)}"
        parts.append(f"The process {how} when it died")
    if (size := checkpoint_bytes(trace)) is not None:
        parts.append(f"the checkpoint has {byte_count(size)}")
    if end.predicted_anon_bytes is not None:
        parts.append(f"the finished load would have held {byte_count(end.predicted_anon_bytes)} anonymous")
    evidence = "; ".join(parts) + "." if parts else "Memory ran out."
    yield Finding(
        "R25",
        "killed-at-limit" if end.status == "killed" else "out-of-memory",
        "Killed at the memory limit" if end.status == "killed" else "Out of memory",
        evidence[0].upper() + evidence[1:],
        'Load in the stored dtype (dtype="auto"), give a device_map with max_memory, or raise the limit.',
        cost_bytes=used,
        numbers={
            "held_bytes": used,
            "limit_bytes": limit,
            "checkpoint_bytes": size,
            "predicted_anon_bytes": end.predicted_anon_bytes,
        },
    )


def _device_full(trace: Trace, full: FullDevice) -> Finding:
    """Returns the finding about a device that had too little memory."""
    held = full.reserved_bytes if full.reserved_bytes is not None else full.allocated_bytes
    of = f" of {byte_count(full.memory_bytes)}" if full.memory_bytes is not None else ""
    parts = [f"torch held {byte_count(held)}{of} when it asked for more"] if held is not None else []
    outside = full.outside_allocator_bytes
    if outside:
        parts.append(f"{byte_count(outside)} were not torch's: the context, other libraries and processes")
    if full.predicted_bytes is not None:
        parts.append(f"the loaded model needs {byte_count(full.predicted_bytes)} there")
    elif (size := checkpoint_bytes(trace)) is not None:
        parts.append(f"the checkpoint has {byte_count(size)}")
    evidence = "; ".join(parts) + "." if parts else "The device was full."
    room = full.room_bytes
    fits = full.predicted_bytes is not None and room is not None and full.predicted_bytes <= room
    advice = 'Let layers stay on the CPU with device_map="auto", quantise, or load in a smaller dtype'
    if outside and full.memory_bytes and outside > OUTSIDE_SHARE * full.memory_bytes:
        advice = f"See with nvidia-smi which processes use {full.device}, and end them. {advice}"
    elif fits:
        kind = full.device.partition(":")[0]
        advice = (
            "The model itself fits, what its load needs on the way does not: "
            f'load it on the CPU and move it, from_pretrained(...).to("{kind}")'
        )
    return Finding(
        "R25",
        "out-of-memory",
        f"Out of memory on {full.device}",
        evidence[0].upper() + evidence[1:],
        advice + ".",
        cost_bytes=held,
        numbers={
            "device": full.device,
            "held_bytes": held,
            "memory_bytes": full.memory_bytes,
            "outside_bytes": outside,
            "predicted_bytes": full.predicted_bytes,
        },
    )


@rule(
    (
        "R10",
        "reserved-unused",
        "When the load ended, the allocator kept much more of a device than tensors need.",
    ),
    concerns="memory",
    severity="warning",
)
def reserved_unused(trace: Trace) -> Iterator[Finding]:
    """R10: the allocator kept much more of a device than the model needs when the load ended."""
    if trace.outcome.get("status", "ok") != "ok":
        return
    for peak in highest_device_peaks(trace):
        unused, reserved = peak.unused_bytes, peak.reserved_bytes or 0
        if unused is None or unused < max(UNUSED_BYTES, UNUSED_SHARE * reserved):
            continue
        kind = peak.device.partition(":")[0]
        warmed = _warmed_up(trace, peak.device)
        why = f"; its warm-up had reserved {byte_count(warmed)} before the first tensor" if warmed else ""
        yield Finding(
            "R10",
            "reserved-unused",
            f"{byte_count(unused)} of {peak.device} reserved and unused",
            f"When the load ended torch had reserved {byte_count(reserved)} of {peak.device} for "
            f"{byte_count(peak.allocated_bytes or 0)} of tensors{why}.",
            f"Call torch.{kind}.empty_cache() after the load: it gives back the blocks that no tensor is in. "
            f'Loaded on the CPU and moved with .to("{kind}"), a model leaves next to none.',
            cost_bytes=unused,
            numbers={
                "device": peak.device,
                "reserved_bytes": reserved,
                "allocated_bytes": peak.allocated_bytes,
                "warmup_bytes": warmed,
            },
        )


def _warmed_up(trace: Trace, device: str) -> int:
    """Returns what was reserved of a device at the end of a warm-up, in bytes; 0 without one."""
    column = trace.spans.column("device_reserved_bytes")
    rows = (row for row, phase in enumerate(span_index(trace).phases) if phase == "warmup")
    return max((device_sizes(column[row]).get(device, 0) for row in rows), default=0)


@rule(
    ("R17", "not-resident", "The load returned with weights that are mapped and not read yet."),
    concerns="memory",
    severity="info",
)
def not_resident(trace: Trace) -> Iterator[Finding]:
    """R17: part of the checkpoint was not in RAM when the load returned."""
    share = resident_share_after(trace)
    size = checkpoint_bytes(trace)
    if share is None or not size or trace.outcome.get("status", "ok") != "ok":
        return
    if not untouched_bytes(trace) or share >= 0.9:
        return  # read, then dropped from the page cache: nothing is owed
    missing = int(size * (1 - share))
    ready = readiness(trace)
    advice = "Count that in: trace with --touch or --forward to get the time until the model is ready."
    if ready is not None and ready.steps:
        spent = " and ".join(f"{step.phase} took {duration(step.duration_ns)}" for step in ready.steps)
        advice = f"Count that in, as was done here: {spent} after the load."
    yield Finding(
        "R17",
        "not-resident",
        "The cost is deferred to first use",
        f"The load returned with {byte_count(missing)} of {byte_count(size)} not yet in RAM: the weights are "
        "memory-mapped, and the first forward pass reads them from storage.",
        advice,
        cost_bytes=missing,
        numbers={"missing_bytes": missing, "checkpoint_bytes": size, "resident_share": share},
        where=Where(files=first_few(file.name for file in weight_files(trace))),
    )
