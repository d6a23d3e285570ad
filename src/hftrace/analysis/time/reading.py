"""Where the weights came from and how fast: shards, reader threads, waiting, page cache.

transformers 4.x reads a shard inside a span of its own. 5.x hands every
tensor to a pool of threads and has no such span: there, a shard is all
tensors of one file, and takes as long as one of them was being read.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import Batch, take, tensor_batches
from hftrace.analysis.once import once
from hftrace.analysis.time.loads import was_read_before
from hftrace.analysis.time.moved import Moved, fate_of
from hftrace.analysis.time.spans import SpanIndex, span_index
from hftrace.schema.trace import Trace


@dataclass
class ShardReading:
    """The tensors of one file that were read inside one span."""

    owner: int | None
    """Row of the innermost ``shard`` span, else ``weights`` span, that the reads lie in."""
    file: str
    tensors: int = 0
    bytes: int = 0
    moved: Moved = field(default_factory=Moved)
    """What of these bytes was read, and what only mapped."""
    start_ns: int | None = None
    end_ns: int | None = None
    busy_ns: dict[int, int] = field(default_factory=dict)
    """Time inside read calls, by thread."""

    stretches: list[tuple[int, int]] = field(default_factory=list)
    """When one of its tensors was being read: in order, and without overlap."""

    @property
    def duration_ns(self) -> int | None:
        """How long its tensors were being read: threads that read at the same time count once."""
        return sum(end - start for start, end in self.stretches) if self.stretches else None


class Reading(NamedTuple):
    """All that is derived from the read times of the tensor ledger."""

    shards: list[ShardReading]
    """In order of their first read."""
    waiting_ns: dict[int, int]
    """By row of a ``weights`` span: how long its thread waited for a thread that reads."""
    waits: list[tuple[int, int]]
    """The same as stretches of time, merged; of several ranks those of the main thread's."""
    reader_threads: dict[tuple[int, int], int]
    """``(rank, thread)`` of each thread that read tensors for another one, with its busy time."""
    rows: dict[tuple[int | None, str], list[int]]
    """Ledger rows by owner and file."""


@once
def weight_reading(trace: Trace) -> Reading:
    """Groups the reads of the tensor ledger by span and file: shards, reader threads and waiting.

    Rows are those of the tensors as they were loaded.
    """
    trace = as_loaded(trace)
    index = span_index(trace)
    main = index.main_lane
    owners = index.nearest(("shard", "weights"))
    weights_of = index.nearest(("weights",))
    named = _shards_by_name(trace, index, weights_of)
    tensors = trace.tensors
    starts, ends = tensors.column("read_start_ns"), tensors.column("read_end_ns")
    asked = tensors.column("asked_ns")
    shards: dict[tuple[int | None, str], ShardReading] = {}
    rows: dict[tuple[int | None, str], list[int]] = {}
    readers: dict[tuple[int, int], int] = {}
    waits: dict[int, list[tuple[int, int]]] = {}
    for batch in tensor_batches(trace):
        thread, tensor_class = batch.thread, batch.tensor_class
        if tensor_class.provenance in ("tied", "meta") or was_read_before(trace, batch.span):
            continue
        if not batch.read and (tensor_class.provenance is None or tensor_class.kind == "unused"):
            continue  # the load died before its turn, or nobody asked for it
        fate = fate_of(trace, batch)
        # What was handed out has no time of reading, but a thread that waited for it.
        begun = starts if batch.read else asked
        for span_row, in_span in _by_span(trace, index, batch):
            known = batch.read or batch.asked
            timed = [row for row in in_span if ends[row] is not None] if known else []
            busy = sum(take(ends, timed)) - sum(take(begun, timed))
            parts = _by_file(trace, batch, in_span)
            for file, mine in parts.items():
                owner = None if span_row is None else owners[span_row]
                if not batch.read and owner is not None:
                    # Read with its whole file, placed later: the row names the span that it was placed in.
                    owner = named.get((owner, file), owner)
                shard = shards.setdefault((owner, file), ShardReading(owner, file))
                rows.setdefault((owner, file), []).extend(mine)
                shard.tensors += len(mine)
                weight = sum(mine.values())
                shard.bytes += weight
                if fate is not None:
                    shard.moved = shard.moved.plus(fate, weight)
                read = [row for row in timed if row in mine] if len(mine) < len(in_span) else timed
                if not read or not batch.read:
                    continue
                began, ended = take(starts, read), take(ends, read)
                shard.start_ns = min(began) if shard.start_ns is None else min(shard.start_ns, *began)
                shard.end_ns = max(ended) if shard.end_ns is None else max(shard.end_ns, *ended)
                shard.stretches += zip(began, ended, strict=True)
                if thread is not None and batch.file is not None:
                    shard.busy_ns[thread] = shard.busy_ns.get(thread, 0) + busy
            weights = None if span_row is None else weights_of[span_row]
            if not timed or not parts or weights is None or thread == index.lanes[weights].thread:
                continue
            if thread is not None:
                readers[batch.rank, thread] = readers.get((batch.rank, thread), 0) + busy
            waits.setdefault(weights, []).extend(_waits(trace, timed))
    for shard in shards.values():
        shard.stretches = merge(shard.stretches)
    merged = {row: merge(stretches) for row, stretches in waits.items() if stretches}
    return Reading(
        shards=sorted(shards.values(), key=lambda shard: (shard.start_ns is None, shard.start_ns or 0)),
        waiting_ns={row: sum(end - start for start, end in stretches) for row, stretches in merged.items()},
        waits=merge(
            stretch
            for row, stretches in merged.items()
            if main is None or index.lanes[row].rank == main.rank
            for stretch in stretches
        ),
        reader_threads=readers,
        rows={key: sorted(mine) for key, mine in rows.items()},
    )


def _by_file(trace: Trace, batch: Batch, rows: list[int]) -> dict[str, dict[int, int]]:
    """Returns the rows of a batch by the files that they came from, with the bytes out of that file."""
    columns = trace.tensors.column
    if batch.file is not None:
        stored, sizes = take(columns("stored_bytes"), rows), take(columns("bytes"), rows)
        figures = [size or 0 if known is None else known for known, size in zip(stored, sizes, strict=True)]
        # Its span tells it from another load's file of the same name, for which the row has the path.
        return {batch.file.rpartition("/")[2]: dict(zip(rows, figures, strict=True))}
    found: dict[str, dict[int, int]] = {}
    for row, files in zip(rows, take(columns("files"), rows), strict=True):
        for file, size in (files or {}).items():
            found.setdefault(file.rpartition("/")[2], {})[row] = size
    return found


def _by_span(trace: Trace, index: SpanIndex, batch: Batch) -> Iterable[tuple[int | None, list[int]]]:
    """Returns the rows of a batch by the row of their span; those that do not say it go by their time."""
    known = index.row_of.get(batch.span) if batch.span is not None else None
    if known is not None:
        return [(known, batch.rows)]
    starts = trace.tensors.column("read_start_ns")
    weights = [
        row
        for row, phase in enumerate(index.phases)
        if phase == "weights" and index.lanes[row].rank == batch.rank
    ]
    found: dict[int | None, list[int]] = {}
    for row in batch.rows:
        found.setdefault(_at(index, weights, starts[row]), []).append(row)
    return found.items()


def _at(index: SpanIndex, weights: list[int], time_ns: int | None) -> int | None:
    """Returns the ``weights`` span of a tensor that does not say its span."""
    if time_ns is not None:
        for row in weights:
            if index.starts[row] <= time_ns <= index.ends[row]:
                return row
    return weights[0] if len(weights) == 1 else None


def _waits(trace: Trace, rows: list[int]) -> Iterable[tuple[int, int]]:
    """Yields when a thread that converts tensors waited for one that reads them."""
    names = ("convert_start_ns", "convert_end_ns", "read_end_ns")
    for began, ended, read in zip(*(take(trace.tensors.column(name), rows) for name in names), strict=True):
        if began is not None and ended is not None:
            # The conversion call waits for the read, then converts: only the first part is waiting.
            until = ended if ended < read else read
            if until > began:
                yield began, until


def _shards_by_name(
    trace: Trace, index: SpanIndex, weights_of: list[int | None]
) -> dict[tuple[int, str], int]:
    """Returns the ``shard`` span of each file, by the ``weights`` span around it and the file's name."""
    names, attributes = trace.spans.column("name"), trace.spans.column("attributes")
    result: dict[tuple[int, str], int] = {}
    for row, phase in enumerate(index.phases):
        weights = weights_of[row]
        if phase == "shard" and weights is not None:
            file = str(attributes[row].get("file") or names[row])
            result.setdefault((weights, file.rpartition("/")[2]), row)
    return result


def merge(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns the union of stretches of time, in order."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if result and start <= result[-1][1]:
            if end > result[-1][1]:
                result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return result
