"""How many bytes of weights a load read, how fast, and from where: storage, or the page cache."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import tensor_sums
from hftrace.analysis.once import once
from hftrace.analysis.time.moved import Moved, moved_by_file
from hftrace.analysis.time.reading import merge, weight_reading
from hftrace.analysis.time.spans import SpanIndex, span_index
from hftrace.schema.model import File
from hftrace.schema.trace import Trace

WARM = 0.95
COLD = 0.05
PLACING = ("weights", "shard", "convert")
READING = (*PLACING, "prefetch")
"""Phases in which weights are read and placed; ``prefetch`` brings files into the page cache before that."""


@once
def weight_files(trace: Trace) -> list[File]:
    """Returns the weight files that were found."""
    return [
        file for file in trace.files if file.shard is not None and file.result not in ("missing", "error")
    ]


@once
def checkpoint_bytes(trace: Trace) -> int | None:
    """Returns the size of the weight files, or of the stored tensors where no file is known."""
    sizes = [file.size_bytes for file in weight_files(trace) if file.size_bytes is not None]
    if sizes:
        return sum(sizes)
    return sum(total.stored_bytes for total in tensor_sums(as_loaded(trace)).values()) or None


@once
def weight_bytes(trace: Trace) -> Moved:
    """Returns the bytes of stored tensors that the main rank read, and those that it only mapped."""
    lane = span_index(trace).main_lane
    parts = [moved for (rank, _), moved in moved_by_file(trace).items() if lane is None or rank == lane.rank]
    return Moved(*(sum(column) for column in zip(*parts, strict=True))) if parts else Moved()


@once
def weights_wall_ns(trace: Trace) -> int | None:
    """Returns how long the main rank was in ``weights`` spans; None where there is none.

    Where loads overlap, in threads, time counts once.
    """
    index = span_index(trace)
    stretches = merge((index.starts[row], index.ends[row]) for row in _outermost(trace))
    return sum(end - start for start, end in stretches) if stretches else None


@once
def reading_ns(trace: Trace) -> int | None:
    """Returns how long the main rank read and placed weights; None where it did not.

    Without what else a loader does before and between: the warm-up of an allocator, initialising, tying,
    and garbage collections that somebody called for. One that Python begins by itself interrupts a read.
    """
    index, attributes = span_index(trace), trace.spans.column("attributes")
    stretches = []
    for start, end, row in index.exclusive(_outermost(trace)):
        above = index.parents[row]
        phase = index.phases[row]
        if phase == "collect" and above is not None and attributes[row].get("automatic") is not False:
            phase = index.phases[above]  # it interrupted that
        if phase in READING:
            stretches.append((start, end))
    return sum(end - start for start, end in merge(stretches)) or None


def _outermost(trace: Trace) -> list[int]:
    """Returns the rows of the main rank's ``weights`` spans that lie in no other.

    A file whose tensors are all read before (GGUF) counts with its own span.
    """
    index = span_index(trace)
    lane = index.main_lane
    before = {shard.owner for shard in weight_reading(trace).shards if shard.start_ns is not None}
    return [
        row
        for row, phase in enumerate(index.phases)
        if (phase == "weights" or (phase == "shard" and row in before))
        and lane is not None
        and index.lanes[row].rank == lane.rank
        and not _inside_weights(index, row)
    ]


def _inside_weights(index: SpanIndex, row: int) -> bool:
    parent = index.parents[row]
    while parent is not None:
        if index.phases[parent] == "weights":
            return True
        parent = index.parents[parent]
    return False


def reader_waiting_ns(trace: Trace) -> int:
    """Returns how long threads that place weights waited for threads that read them."""
    return sum(weight_reading(trace).waiting_ns.values())


@once
def storage_bytes(trace: Trace) -> int | None:
    """Returns what the main rank's process fetched from storage while weights were read; None if unknown.

    It is the whole process's: of loads that overlap, the most that one of them saw.
    """
    column = trace.spans.column("storage_read_bytes")
    rows = _outermost(trace)
    stretches = merge((span_index(trace).starts[row], span_index(trace).ends[row]) for row in rows)
    total = 0
    for start, end in stretches:
        seen = [column[row] for row in rows if start <= span_index(trace).starts[row] <= end]
        if not seen or None in seen:
            return None
        total += max(seen) if len(seen) > 1 else seen[0]
    return total if stretches else None


def goes_to_a_device(trace: Trace) -> bool:
    """Returns whether weights were moved to an accelerator: a copy to one may outlast its call."""
    return any(
        tensor_class.device not in (None, "cpu", "meta") and total.stored_bytes
        for tensor_class, total in tensor_sums(trace).items()
    )


def read_rate(trace: Trace) -> float | None:
    """Returns bytes per second: what moved, over the time spent reading; None where that is not known."""
    moved, time_ns = weight_bytes(trace), reading_ns(trace)
    return moved.read / (time_ns / 1e9) if moved.read and not moved.unknown and time_ns else None


def resident_share_before(trace: Trace) -> float | None:
    """Returns the share of the checkpoint in the page cache when the load began."""
    return resident_share(weight_files(trace), "resident_before")


def resident_share_after(trace: Trace) -> float | None:
    """Returns the same when the load returned."""
    known = trace.outcome.get("returned_resident_share")
    if isinstance(known, (int, float)) and 0 <= known <= 1:
        return float(known)
    return resident_share(weight_files(trace), "resident_after")


def resident_share(files: Iterable[File], column: str) -> float | None:
    """Returns the share of the files' bytes that was in the page cache, None where no file says it."""
    known = 0
    resident = 0.0
    for file in files:
        value = getattr(file, column)
        if value is not None and file.size_bytes:
            known += file.size_bytes
            resident += min(1.0, max(0.0, value)) * file.size_bytes
    return resident / known if known else None


def cache_state(share: float | None) -> str | None:
    """Returns ``cold``, ``warm`` or ``partly`` for the share of the checkpoint that was in RAM before."""
    if share is None:
        return None
    return "warm" if share >= WARM else "cold" if share <= COLD else "partly"
