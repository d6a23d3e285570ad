"""The ranks of a job: what each holds, read and waited for, and how it ended."""

from __future__ import annotations

from typing import Any

from hftrace import units
from hftrace.analysis.ranks.each import RankFacts
from hftrace.analysis.ranks.job import Job, job_of
from hftrace.analysis.time.spans import span_index
from hftrace.render.ranks import CLOCKS, amplification_words, endings_words, slowest_words, together_words
from hftrace.render.tables import Column, Row, table
from hftrace.render.text import BAD, PLAIN, Block
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace

COLUMNS = (
    Column("rank", most=12),
    Column("loads took", right=True),
    Column("waiting", right=True, rank=2),
    Column("mesh", right=True, rank=3),
    Column("holds", right=True),
    Column("parts", right=True, rank=4),
    Column("own memory", right=True, rank=1),
    Column("touched", right=True, rank=2),
    Column("read", right=True, rank=1),
    Column("ended", most=16),
)


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns a line for each rank, and below it what is to be said of all of them."""
    job = job_of(trace)
    if job is None:
        return [table("Ranks", "", COLUMNS, [], ["one process: this trace holds no other rank"])]
    rows = rank_rows(job)
    note = f"{len(job.ranks)} of {job.world_size}"
    return [table("Ranks", note, COLUMNS, rows, rank_remarks(trace, job))]


def facts(trace: Trace, options: ViewOptions) -> dict[str, Any]:
    """Returns the ranks, and the figures of all of them together."""
    job = job_of(trace)
    numbers = sorted({lane.rank for lane in span_index(trace).lanes})
    by_rank = trace.outcome.get("by_rank")
    return {
        "ranks": numbers,
        "job": job.to_json() if job is not None else None,
        "outcome": by_rank if isinstance(by_rank, list) else None,
    }


def rank_rows(job: Job) -> list[Row]:
    """Returns the cells of each rank. How they ended is said where one did not end well."""
    well = all(rank.status in (None, "ok") for rank in job.ranks)
    return [
        Row(
            (*_cells(rank), units.UNKNOWN if well else rank.status or units.UNKNOWN),
            BAD if rank.status not in (None, "ok") else PLAIN,
        )
        for rank in job.ranks
    ]


def _cells(rank: RankFacts) -> tuple[str, ...]:
    return (
        f"rank {rank.rank}",
        units.duration(rank.load_ns) if rank.loads else "no load",
        units.duration(rank.wait_ns),
        units.duration(rank.mesh_ns),
        units.UNKNOWN if rank.cut else units.byte_count(rank.held_bytes),
        units.UNKNOWN if rank.cut else f"{rank.divided:,} of {rank.tensors:,}",
        _signed(rank.anonymous_bytes),
        units.byte_count(rank.touched_bytes),
        units.byte_count(rank.storage_read_bytes),
    )


def _signed(size: int | None) -> str:
    if size is None:
        return units.UNKNOWN
    return f"{'-' if size < 0 else '+'}{units.byte_count(abs(size))}"


def rank_remarks(trace: Trace, job: Job) -> list[str]:
    """Returns what is to be said of all ranks, each as a sentence."""
    said = []
    whole, share = units.byte_count(job.whole_bytes), units.byte_count(job.share_bytes)
    said.append(f"the model is {whole}: an even part for each of {job.world_size} ranks is {share}")
    if words := amplification_words(job):
        size = units.byte_count(job.checkpoint_bytes)
        said.append(f"{words} (it has {size}); what the cache or another rank had did not have to")
    else:
        said.append("how much of the checkpoint came from storage was not seen on every rank")
    if words := together_words(trace):
        said.append(f"memory of all ranks: {words}")
    if words := slowest_words(job):
        said.append(f"{words}, waiting left out")
    if words := endings_words(trace):
        said.append(words)
    if job.clocks in CLOCKS:
        said.append(f"{CLOCKS[job.clocks]}: times of ranks on different machines are no better than that")
    if job.missing:
        said.append(f"nothing is known of rank {', '.join(map(str, job.missing[:8]))}")
    for each in job.differences[:4]:
        by_rank = each.get("by_rank")
        values = by_rank.items() if isinstance(by_rank, dict) else ()
        said.append(
            f"{each.get('of')} differs: " + ", ".join(f"rank {rank} {value}" for rank, value in values)
        )
    return said
