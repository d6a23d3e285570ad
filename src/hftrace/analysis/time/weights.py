"""How many bytes of weights a load read, how fast, and from where: storage, or the page cache."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace.analysis.ledger.tensors import tensor_sums
from hftrace.analysis.once import once
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.spans import SpanIndex, span_index
from hftrace.schema.model import File
from hftrace.schema.trace import Trace

WARM = 0.95
COLD = 0.05
LAZY_SHARE = 0.5
"""Share of the weights on CPU that must be missing from the process before a load is called lazy."""


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
    return sum(total.stored_bytes for total in tensor_sums(trace).values()) or None


@once
def weight_bytes_read(trace: Trace) -> int | None:
    """Returns the bytes of stored tensors that the loader read or mapped."""
    known = [file.read_bytes for file in weight_files(trace) if file.read_bytes is not None]
    if known:
        return sum(known)
    return sum(shard.bytes for shard in weight_reading(trace).shards) or None


@once
def weights_wall_ns(trace: Trace) -> int | None:
    """Returns the wall time of the outermost ``weights`` spans of the main rank; None where there is none.

    A file whose tensors are all read before (GGUF) counts with its own span.
    """
    index = span_index(trace)
    lane = index.main_lane
    before = {shard.owner for shard in weight_reading(trace).shards if shard.start_ns is not None}
    times = [
        index.wall_ns(row)
        for row, phase in enumerate(index.phases)
        if (phase == "weights" or (phase == "shard" and row in before))
        and lane is not None
        and index.lanes[row].rank == lane.rank
        and not _inside_weights(index, row)
    ]
    return sum(times) if times else None


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
def untouched_bytes(trace: Trace) -> int:
    """Returns the bytes of weights on CPU that the process had not touched when the load returned.

    Memory-mapped weights are in the model before they are in memory:
    then the process grew by less than the weights weigh.
    """
    index = span_index(trace)
    ranks = {lane.rank for lane in index.lanes}
    if len(ranks) > 1 or trace.outcome.get("status", "ok") != "ok":
        return 0
    expected = sum(
        total.bytes
        for tensor_class, total in tensor_sums(trace).items()
        if tensor_class.device == "cpu"
        and tensor_class.provenance == "checkpoint"
        and tensor_class.offload is None
    )
    growth = 0
    for row in index.load_rows:
        span = trace.spans[row]
        before = (span.rss_anon_start_bytes, span.rss_file_start_bytes)
        after = (span.rss_anon_bytes, span.rss_file_bytes)
        if None in before or None in after:
            return 0
        growth += sum(filter(None, after)) - sum(filter(None, before))
    missing = expected - max(0, growth)
    return missing if expected and index.load_rows and missing >= LAZY_SHARE * expected else 0


def read_rate(trace: Trace) -> float | None:
    """Returns bytes per second: read, over the time in ``weights``; None where they were only mapped."""
    read, time_ns = weight_bytes_read(trace), weights_wall_ns(trace)
    if not read or not time_ns or untouched_bytes(trace):
        return None
    return read / (time_ns / 1e9)


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
