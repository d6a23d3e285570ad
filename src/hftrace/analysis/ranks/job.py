"""Of all ranks of a job: read amplification, memory of a machine, and the slowest rank and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hftrace.analysis.memory.readings import host_readings
from hftrace.analysis.once import once
from hftrace.analysis.ranks.each import RankFacts, ranks_of, whole_bytes
from hftrace.analysis.time.spans import UNATTRIBUTED
from hftrace.analysis.time.weights import weight_files
from hftrace.analysis.values import text
from hftrace.schema.trace import Trace

WORTH_SHARE = 0.1
"""A rank is the slowest where it took so much more than the fastest one: less is what any two differ by."""
WORTH_NS = 50_000_000
"""And so much longer: below that the scheduler decides."""


@dataclass(frozen=True)
class Machine:
    """One machine of a job."""

    name: str | None
    ranks: tuple[int, ...]
    anonymous_peak_bytes: int | None
    """The most that its ranks had at one time, added up: nobody shares these pages."""
    file_largest_bytes: int | None
    """The most that one of them had mapped of files. Others may have mapped the same pages, so they are not
    added up."""
    storage_read_bytes: int | None
    """That its ranks caused to be read in their loads."""


@dataclass(frozen=True)
class Slowest:
    """The rank that took longest for its loads, waiting for others left out."""

    rank: int
    than: int
    """The fastest one."""
    by_ns: int
    phase: str | None
    """In which it took longest beyond the fastest one; ``unattributed`` is no phase's."""
    phase_by_ns: int


@dataclass(frozen=True)
class Job:
    """All ranks that a trace holds."""

    ranks: list[RankFacts]
    world_size: int
    missing: list[int]
    """Ranks of the job of which the trace has nothing."""
    clocks: str | None
    """By what the clocks were brought together; None where one recorder wrote it all."""
    whole_bytes: int
    share_bytes: int
    """An even part of that."""
    checkpoint_bytes: int | None
    machines: list[Machine]
    read_amplification: float | None
    """Bytes that all ranks caused to be read from storage, over the checkpoint's."""
    slowest: Slowest | None
    differences: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {**asdict(self), "ranks": [rank.to_json() for rank in self.ranks]}


@once
def job_of(trace: Trace) -> Job | None:
    """Returns the job whose ranks a trace holds; None where it is of one process."""
    ranks = ranks_of(trace)
    if not ranks:
        return None
    header = trace.header
    merged = header.get("merged")
    merged = merged if isinstance(merged, Mapping) else {}
    whole = whole_bytes(trace)
    size = max(header.get("world_size") or 1, len(ranks))
    checkpoint = checkpoint_once(trace)
    reads = [rank.storage_read_bytes for rank in ranks if rank.loads]
    known = [read for read in reads if read is not None]
    complete = bool(known) and len(known) == len(reads) and len(ranks) == size
    return Job(
        ranks=ranks,
        world_size=size,
        missing=[rank for rank in merged.get("missing") or [] if isinstance(rank, int)],
        clocks=text(merged.get("clocks")),
        whole_bytes=whole,
        share_bytes=whole // size,
        checkpoint_bytes=checkpoint,
        machines=_machines(trace, ranks),
        read_amplification=sum(known) / checkpoint if complete and checkpoint else None,
        slowest=_slowest(ranks),
        differences=[each for each in merged.get("differences") or [] if isinstance(each, dict)],
    )


@once
def checkpoint_once(trace: Trace) -> int | None:
    """Returns the size of the weight files, each once, however many ranks have loaded it."""
    sizes: dict[str, int] = {}
    for file in weight_files(trace):
        if file.size_bytes is not None:
            sizes[file.path or file.name] = file.size_bytes
    return sum(sizes.values()) or None


def _machines(trace: Trace, ranks: list[RankFacts]) -> list[Machine]:
    groups: dict[str | None, list[RankFacts]] = defaultdict(list)
    for rank in ranks:
        groups[rank.machine].append(rank)
    found = []
    for name, own in groups.items():
        pids = [rank.pid for rank in own]
        reads = [rank.storage_read_bytes for rank in own if rank.loads]
        known = [read for read in reads if read is not None]
        found.append(
            Machine(
                name=name,
                ranks=tuple(rank.rank for rank in own),
                anonymous_peak_bytes=_together(trace, pids),
                file_largest_bytes=_largest(trace, pids),
                storage_read_bytes=sum(known) if known and len(known) == len(reads) else None,
            )
        )
    return found


def _together(trace: Trace, pids: list[int | None]) -> int | None:
    """Returns the most anonymous memory that processes had at one time; None where one was never read."""
    readings = host_readings(trace)
    taken = [readings.get(pid) or [] for pid in pids]
    if not all(taken) or None in pids:
        return None
    events = sorted(
        (reading.time_ns, number, reading.anonymous_bytes)
        for number, each in enumerate(taken)
        for reading in each
    )
    current = [0] * len(taken)
    total = peak = 0
    for _, number, size in events:
        total += size - current[number]
        current[number] = size
        peak = max(peak, total)
    return peak


def _largest(trace: Trace, pids: list[int | None]) -> int | None:
    readings = host_readings(trace)
    sizes = [reading.file_bytes for pid in pids for reading in readings.get(pid) or []]
    return max(sizes, default=None)


def _slowest(ranks: list[RankFacts]) -> Slowest | None:
    loading = [rank for rank in ranks if rank.loads and not rank.cut]
    if len(loading) < 2:
        return None
    last, first = max(loading, key=_busy), min(loading, key=_busy)
    behind = last.busy_ns - first.busy_ns
    if behind < WORTH_NS or behind < WORTH_SHARE * first.busy_ns:
        return None
    more = {
        phase: spent - first.phases.get(phase, 0)
        for phase, spent in last.phases.items()
        if phase not in ("wait", "mesh")
    }
    phase = max(more, key=lambda name: more[name], default=None)
    if phase is None or more[phase] <= 0:
        return Slowest(last.rank, first.rank, behind, None, 0)
    return Slowest(last.rank, first.rank, behind, None if phase == UNATTRIBUTED else phase, more[phase])


def _busy(rank: RankFacts) -> int:
    return rank.busy_ns
