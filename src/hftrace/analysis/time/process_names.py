"""What the processes of a trace are called, where it has several."""

from __future__ import annotations

from hftrace.analysis.once import once
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace


@once
def process_names(trace: Trace) -> dict[tuple[int, int], str]:
    """Returns a name for each process, by rank and number; nothing where there is only one.

    Ranks are called ``rank 1``, a program and its children ``process 4711``. Of several processes of one
    rank the first one that the launcher started is the rank, as far as the trace says which that is.
    """
    found = sorted({(lane.rank, lane.pid) for lane in span_index(trace).lanes})
    if len(found) < 2:
        return {}
    numbers = [rank for rank, _ in found]
    alone = len(set(numbers)) == len(found)
    ranks = set(found) if alone else _ranks(trace) & set(found)
    return {(rank, pid): f"rank {rank}" if (rank, pid) in ranks else f"process {pid}" for rank, pid in found}


def _ranks(trace: Trace) -> set[tuple[int, int]]:
    """Returns the first process of each rank of a job, by rank and number."""
    known = trace.header.get("processes")
    first: dict[int, int] = {}
    for process in known if isinstance(known, list) else ():
        if isinstance(process, dict) and process.get("job"):
            rank, pid = natural(process.get("rank")), natural(process.get("pid"))
            if rank is not None and pid is not None:
                first.setdefault(rank, pid)
    return set(first.items())


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
