"""Rules about parameters that are merged of several keys, as 5.x does of experts: what that needs besides."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace.analysis.ending.death import death_of
from hftrace.analysis.findings.rules import Finding, Fix, rule
from hftrace.analysis.ledger.merges import Merge, merges
from hftrace.analysis.memory.composition import peak_composition
from hftrace.schema.trace import Trace
from hftrace.units import byte_count, count, share

KEPT_BYTES = 50_000_000
KEPT_SHARE = 0.1
"""What malloc may keep, in bytes and as a share of the load's rise, before a finding speaks of it."""
ADVICE = (
    "Start the process with MALLOC_MMAP_THRESHOLD_=131072: glibc then gives back each part that is freed. "
    "With HF_DEACTIVATE_ASYNC_LOAD=1 parts are read when their parameter is merged, and not long before"
)

FIX = Fix(environment={"MALLOC_MMAP_THRESHOLD_": "131072"})


@rule(
    ("R50", "merged-parts-kept", "Weights were merged of many keys, and malloc kept what that had freed."),
    (
        "R50",
        "killed-while-merging",
        "A load that merges weights of many keys was killed for its memory.",
        "error",
    ),
    concerns="memory",
    severity="warning",
)
def merged(trace: Trace) -> Iterator[Finding]:
    """R50: what it takes to merge experts, where it is much."""
    found = merges(trace)
    if not found:
        return
    parts = {part.kind: part.bytes for part in made.parts} if (made := peak_composition(trace)) else {}
    if trace.outcome.get("status", "ok") != "ok":
        end = death_of(trace)
        if end.killer not in ("memory-limit", "kernel-oom", "out-of-memory") or end.device is not None:
            return
        waiting = parts.get("copies", 0)
        read = f" {byte_count(waiting)} had been read, and were not in the model yet." if waiting else ""
        yield Finding(
            "R50",
            "killed-while-merging",
            "Killed in a load that merges weights",
            f"{_merged(found, 'had become')} when it died. While one is merged, its parts and the whole are "
            f"there at once.{read}",
            f"{ADVICE}.",
            fix=FIX,
            numbers={"waiting_bytes": waiting},
        )
        return
    kept = parts.get("reserve", 0)
    rise = made.peak_bytes - made.start_bytes if made is not None else 0
    if kept < max(KEPT_BYTES, KEPT_SHARE * rise):
        return
    yield Finding(
        "R50",
        "merged-parts-kept",
        "Merging weights left freed memory behind",
        f"{_merged(found, 'became')}. At the peak malloc had kept {byte_count(kept)} of freed memory: "
        f"{share(kept / rise)} of the {byte_count(rise)} that the load needed.",
        f"{ADVICE}.",
        cost_bytes=kept,
        fix=FIX,
        numbers={
            "kept_bytes": kept,
            "rise_bytes": rise,
            "keys": sum(each.keys for each in found),
            "tensors": sum(each.tensors for each in found),
        },
    )


def _merged(found: list[Merge], became: str) -> str:
    operations = ", ".join(dict.fromkeys(name for each in found for name in each.operations))
    return (
        f"{count(sum(each.keys for each in found), 'key')} {became} "
        f"{count(sum(each.tensors for each in found), 'parameter')} of "
        f"{byte_count(sum(each.bytes for each in found))} ({operations})"
    )
