"""Rules about parameters that are merged of several keys, as 5.x does of experts: what that needs besides."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace.analysis.findings.rules import MOST_NAMED, Finding, Fix, Where, rule
from hftrace.analysis.ledger.merges import Merge, merges
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.request import asked_keywords
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
        from hftrace.analysis.ending.death import death_of  # not for a load that ended well

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


AHEAD = 2
"""Times the largest parameter: the parts of one and the whole of it are there at once while it is merged."""


IN_TURN = Fix(environment={"HF_DEACTIVATE_ASYNC_LOAD": "1"})
WHOLE = "disable_mmap"
"""The keyword (5.8 and newer) by which files are read into memory whole, and not mapped."""


@rule(
    ("R12", "conversion-spike", "Parts of merged parameters were in memory beside what they became."),
    concerns="memory",
    severity="warning",
)
def conversion_spike(trace: Trace) -> Iterator[Finding]:
    """R12: a peak that is made of parts, which were merged and not let go of, or are not merged yet.

    Parts that are read ahead of their turn become as many bytes of parameters: they are a peak only of a
    merge that makes less of them. Parts that lie in a file that was read whole stay until the load is over.
    """
    found = merges(trace)
    made = peak_composition(trace)
    if not found or made is None or trace.outcome.get("status", "ok") != "ok":
        return
    sizes = {(part.kind, part.memory): part.bytes for part in made.parts}
    waiting = sizes.get(("copies", "anonymous"), 0)
    kept = min(sizes.get(("sources", "anonymous"), 0), sum(each.stored_bytes for each in found))
    largest = max(each.largest_bytes for each in found)
    rise = made.peak_bytes - made.start_bytes
    spare = waiting + kept - AHEAD * largest
    if not largest or spare < max(KEPT_BYTES, KEPT_SHARE * rise):
        return
    what = f"{_merged(found, 'became')}, of which the largest takes {byte_count(largest)}."
    fix: Fix | None
    if waiting >= kept:
        title = f"{byte_count(waiting)} read and not yet merged at the peak"
        how = f"{byte_count(waiting)} of their parts had been read and were not in the model yet"
        advice, fix = READ_AHEAD, IN_TURN
    else:
        title = f"{byte_count(kept)} of parts in memory beside what they became"
        how = f"{byte_count(kept)} of their parts were in memory too, in files that were read whole"
        whole = asked_keywords(trace).get(WHOLE) is True
        advice, fix = (MAP, Fix({WHOLE: False})) if whole else (SAVE, None)
    yield Finding(
        "R12",
        "conversion-spike",
        title,
        f"{what} At the peak {how}: {share((waiting + kept) / rise)} of the {byte_count(rise)} that the load "
        "needed.",
        f"{advice} A checkpoint that is saved as the model has it needs no merging: "
        "save_pretrained(..., save_original_format=False).",
        cost_bytes=spare,
        fix=fix,
        numbers={
            "waiting_bytes": waiting,
            "kept_bytes": kept,
            "largest_bytes": largest,
            "rise_bytes": rise,
        },
        where=Where(spans=[span for each in found for span in each.spans if span is not None][:MOST_NAMED]),
    )


READ_AHEAD = (
    "Set HF_DEACTIVATE_ASYNC_LOAD=1 (5.x): parts are read when their parameter is merged, and no sooner."
)
MAP = (
    "Leave disable_mmap=True out: parts are then pages of a file, which the kernel can take back at any time."
)
SAVE = "Save it as safetensors: parts are then pages of a file, which the kernel can take back at any time."


def _merged(found: list[Merge], became: str) -> str:
    operations = ", ".join(dict.fromkeys(name for each in found for name in each.operations))
    return (
        f"{count(sum(each.keys for each in found), 'key')} {became} "
        f"{count(sum(each.tensors for each in found), 'parameter')} of "
        f"{byte_count(sum(each.bytes for each in found))} ({operations})"
    )
