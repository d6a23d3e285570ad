"""Rules about the ranks of a job: copies that nobody needs, and bytes that are read more than once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hftrace import units
from hftrace.analysis.findings.rules import WORTH_BYTES, Finding, rule
from hftrace.analysis.ranks.each import RankFacts
from hftrace.analysis.ranks.job import Job, job_of
from hftrace.analysis.request import asked_keywords
from hftrace.schema.trace import Trace

COPY_SHARE = 1.3
"""Times its share that a rank may commit: what a plan replicates, norms and embeddings, is some of it."""
READ_SHARE = 1.5
"""Times the checkpoint that all ranks together may read: shards that two of them need are read twice."""
SPREAD = 0.2
"""Of the machine that read most: two that need the same do not differ by more."""
DIVIDING = ("tp_plan", "tp_size", "fsdp_size", "device_mesh", "distributed_config")
"""Keywords of ``from_pretrained`` that ask for a part on each rank."""
SWITCHES = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING", "ACCELERATE_USE_DEEPSPEED")
"""Variables that ask for that elsewhere."""
OFF = ("", "0", "false", "no", "off")


@rule(
    (
        "R14",
        "full-copy-per-rank",
        "A rank has committed memory for much more of the model than its share.",
    ),
    concerns="memory",
    severity="warning",
    of_session=True,
)
def full_copy_per_rank(trace: Trace) -> Iterator[Finding]:
    """R14: ranks that were to have a part each, and have, or had to make, a copy of all."""
    job = job_of(trace)
    if job is None or not job.whole_bytes:
        return
    asked = _asked(trace)
    if not asked and not any(rank.divided for rank in job.ranks):
        return  # a replica on each rank, as data parallelism needs
    first_loads_for_all = _is_on(trace, "FSDP_CPU_RAM_EFFICIENT_LOADING")
    found = [
        (rank, over)
        for rank in job.ranks
        if not (first_loads_for_all and rank.rank == 0)
        and (over := _over(rank, job, from_first=first_loads_for_all)) >= WORTH_BYTES
    ]
    if not found:
        return
    worst, over = max(found, key=_by_bytes)
    names = ", ".join(str(rank.rank) for rank, _ in found[:8])
    several = "ranks" if len(found) > 1 else "rank"
    divided = (
        f"{worst.divided:,} of its {worst.tensors:,} tensors are parts"
        if worst.divided
        else "none of its tensors is a part"
    )
    keywords = [f"{name}=" for name in DIVIDING if asked_keywords(trace).get(name) is not None]
    told = ", ".join([*keywords, *_switches(trace)]) or "no keyword or variable that divides a model"
    yield Finding(
        "R14",
        "full-copy-per-rank",
        f"{several.capitalize()} {names} committed memory for more than a part of the model",
        f"The model weighs {units.byte_count(job.whole_bytes)}, an even part for {job.world_size} ranks is "
        f"{units.byte_count(job.share_bytes)}. Rank {worst.rank} committed "
        f"{units.byte_count(worst.committed_bytes)}, and {divided}. Asked for: {told}.",
        "What divides the model has to be on when from_pretrained is called: initialise the process group, "
        "and set the variables of accelerate or the configuration of DeepSpeed, before it.",
        cost_bytes=sum(size for _, size in found),
        view="ranks",
        numbers={
            "ranks": len(found),
            "rank": worst.rank,
            "committed_bytes": worst.committed_bytes,
            "share_bytes": job.share_bytes,
            "whole_bytes": job.whole_bytes,
            "over_bytes": over,
        },
    )


def _over(rank: RankFacts, job: Job, *, from_first: bool) -> int:
    """Returns by how much more than a rank may it has committed.

    Args:
        rank: The rank.
        job: All of them.
        from_first: Whether the first rank loads for all, and the others have nothing yet.
    """
    committed = rank.committed_bytes
    if committed is None:
        return 0
    # A plan says what is replicated; what is not divided at all is no plan's doing.
    allowed = max(job.share_bytes, rank.held_bytes if rank.divided and not from_first else 0)
    return committed - allowed if committed > COPY_SHARE * allowed else 0


def _by_bytes(found: tuple[RankFacts, int]) -> int:
    return found[1]


def _asked(trace: Trace) -> str:
    """Returns what asked for a part on each rank, in words."""
    keywords = [name for name in DIVIDING if asked_keywords(trace).get(name) is not None]
    switches = [name for name in SWITCHES if _is_on(trace, name)]
    return ", ".join([*keywords, *switches])


def _variables(trace: Trace) -> Mapping[str, Any]:
    known = trace.environment.get("variables")
    return known if isinstance(known, Mapping) else {}


def _is_on(trace: Trace, name: str) -> bool:
    return str(_variables(trace).get(name) or "").lower() not in OFF


def _switches(trace: Trace) -> list[str]:
    known = _variables(trace)
    return [f"{name}={known[name]}" for name in SWITCHES if name in known]


@rule(
    ("R15", "read-amplification", "The ranks of a job read much more than the checkpoint, or unevenly."),
    concerns="time",
    severity="warning",
    of_session=True,
)
def read_amplification(trace: Trace) -> Iterator[Finding]:
    """R15: bytes that came from storage more than once, for one rank after the other or one machine."""
    job = job_of(trace)
    if job is None or job.read_amplification is None or not job.checkpoint_bytes:
        return
    read = round(job.read_amplification * job.checkpoint_bytes)
    more = read - job.checkpoint_bytes
    sizes = [machine.storage_read_bytes or 0 for machine in job.machines]
    spread = 1 - min(sizes) / max(sizes) if len(sizes) > 1 and max(sizes) else 0.0
    amplified = job.read_amplification > READ_SHARE and more >= WORTH_BYTES
    uneven = spread > SPREAD and max(sizes) - min(sizes) >= WORTH_BYTES
    if not amplified and not uneven:
        return
    each = "; ".join(
        f"ranks {', '.join(map(str, machine.ranks))}: {units.byte_count(machine.storage_read_bytes)}"
        for machine in job.machines[:4]
    )
    title = (
        f"All ranks together read {job.read_amplification:.1f} times the checkpoint"
        if amplified
        else f"One machine read {units.share(spread)} less of the checkpoint than another"
    )
    yield Finding(
        "R15",
        "read-amplification",
        title,
        f"The checkpoint has {units.byte_count(job.checkpoint_bytes)}, and {units.byte_count(read)} came "
        f"from storage on {units.count(len(job.machines), 'machine')} ({each}).",
        "Ranks of one machine read a file once as long as the page cache keeps it: give it memory, or let "
        "each rank read its parts alone. Several machines read it once each: copy it to a disk of theirs "
        "first, or let one read and send.",
        cost_bytes=max(0, more) or None,
        view="ranks",
        numbers={
            "amplification": round(job.read_amplification, 3),
            "read_bytes": read,
            "checkpoint_bytes": job.checkpoint_bytes,
            "machines": len(job.machines),
            "spread": round(spread, 3),
        },
    )
