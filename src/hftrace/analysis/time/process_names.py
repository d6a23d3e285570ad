"""What the processes of a trace are called, where it has several."""

from __future__ import annotations

from hftrace.analysis.once import once
from hftrace.analysis.time.spans import span_index
from hftrace.schema.trace import Trace


@once
def process_names(trace: Trace) -> dict[tuple[int, int], str]:
    """Returns a name for each process, by rank and number; nothing where there is only one.

    Ranks are called ``rank 1``, a program and its children ``process 4711``; a child of a rank has both.
    """
    found = sorted({(lane.rank, lane.pid) for lane in span_index(trace).lanes})
    if len(found) < 2:
        return {}
    ranks = [rank for rank, _ in found]
    if len(set(ranks)) == 1:
        return {(rank, pid): f"process {pid}" for rank, pid in found}
    return {
        (rank, pid): f"rank {rank}" if ranks.count(rank) == 1 else f"rank {rank}, process {pid}"
        for rank, pid in found
    }


def name_of_process(trace: Trace, rank: int, pid: int | None) -> str | None:
    """Returns the name of a process; None where there is no other.

    Args:
        trace: The trace.
        rank: Of the process.
        pid: Its number; None where only its rank is known.
    """
    names = process_names(trace)
    if pid is not None:
        return names.get((rank, pid))
    return next((name for (of, _), name in names.items() if of == rank and name.startswith("rank")), None)
