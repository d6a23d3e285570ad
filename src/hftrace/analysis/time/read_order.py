"""How weight files were read: through a memory map or by calls, and in which order.

What calls such as ``read`` return to a process the kernel counts; pages of a map are not in that count.
Storage that is far away, or that spins, gives a file much faster from front to back. What was only mapped was
not read, whatever the order in which its tensors were asked for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.once import once
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import READING, weight_bytes
from hftrace.schema.trace import Trace

LEAST_READS = 4
"""Of fewer reads nobody asks for the order."""
SEQUENTIAL = 0.05
"""So small a share of reads that went back leaves what the kernel reads ahead as it is."""


CALLS_BYTES = 16_000_000
"""Of weights that take less, what else a process reads meanwhile is too much of what is counted."""
NEARLY_ALL, NEXT_TO_NOTHING = 0.9, 0.1


@once
def read_call_bytes(trace: Trace) -> int | None:
    """Returns the bytes that calls returned to the main process while it read weights; None if unknown."""
    return _while_reading(trace, "read_call_bytes")


@once
def storage_stall_ns(trace: Trace) -> int | None:
    """Returns how long any process waited for storage meanwhile, in its control group or on the machine."""
    return _while_reading(trace, "io_stall_ns")


def _while_reading(trace: Trace, column: str) -> int | None:
    """Returns by how much a counter of the samples grew, from the last one before to the first one after."""
    index = span_index(trace)
    lane = index.main_lane
    # Up to 4.50 a file that is alone is read before the weights are placed, in a span of its own.
    rows = [row for row, phase in enumerate(index.phases) if phase in READING and index.lanes[row] == lane]
    if not rows or lane is None:
        return None
    start, end = min(index.starts[row] for row in rows), max(index.ends[row] for row in rows)
    columns = map(trace.samples.column, ("time_ns", "pid", column))
    known = [(time, count) for time, pid, count in zip(*columns, strict=True) if pid == lane.pid]
    before = [count for time, count in known if time <= start and count is not None]
    after = [count for time, count in known if time >= end and count is not None]
    return max(0, min(after) - max(before)) if before and after else None


def read_by(trace: Trace) -> str | None:
    """Returns how weights were read: ``map``, ``calls`` or ``both``; None if unknown, or where none were."""
    read, counted = weight_bytes(trace).read, read_call_bytes(trace)
    owners = (shard.owner for shard in weight_reading(as_loaded(trace)).shards if shard.moved.read)
    if counted is None or read < CALLS_BYTES or None in owners:
        return None
    if counted >= NEARLY_ALL * read:
        return "calls"
    return "map" if counted <= NEXT_TO_NOTHING * read else "both"


class ReadOrder(NamedTuple):
    """How the reads of one weight file followed one another."""

    reads: int
    back: int
    """Those that began in front of one that had ended: reads of several threads at once have no order."""

    @property
    def sequential(self) -> bool:
        """Whether the file was read from front to back."""
        return self.back <= SEQUENTIAL * self.reads

    def facts(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {**self._asdict(), "sequential": self.sequential}


@once
def read_orders(trace: Trace) -> dict[tuple[int | None, str], ReadOrder]:
    """Returns the order of the reads by span and file, as :func:`weight_reading` has them.

    A file is left out of which nothing was read, or too few tensors, or where offsets or times are unknown.
    """
    trace = as_loaded(trace)
    reading = weight_reading(trace)
    read = {(shard.owner, shard.file) for shard in reading.shards if shard.moved.read}
    names = ("read_start_ns", "read_end_ns", "offset")
    starts, ends, offsets = map(trace.tensors.column, names)
    found = {}
    for key, rows in reading.rows.items():
        known = [row for row in rows if None not in (starts[row], ends[row], offsets[row])]
        if key in read and len(known) >= LEAST_READS and len(known) == len(rows):
            found[key] = _order(
                sorted((starts[row], offsets[row]) for row in known),
                sorted((ends[row], offsets[row]) for row in known),
            )
    return found


def _order(begun: list[tuple[int, int]], ended: list[tuple[int, int]]) -> ReadOrder:
    back, furthest, done = 0, -1, 0
    for start, offset in begun:
        while done < len(ended) and ended[done][0] <= start:
            furthest = max(furthest, ended[done][1])
            done += 1
        back += offset < furthest
    return ReadOrder(len(begun), back)
