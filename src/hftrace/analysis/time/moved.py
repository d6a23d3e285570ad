"""Which stored bytes a load moved, and which it only mapped: a rate is for bytes that moved.

A tensor that went to a device, was cast, converted or quantised was read. One that stays on the CPU in its
stored dtype is a memory map that nobody need have touched, and so is one that was left behind a hook: whether
the process grew by it says more.
"""

from typing import NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.dtypes import asked_dtype, loaded_as
from hftrace.analysis.ledger.tensors import Batch, tensor_batches
from hftrace.analysis.once import once
from hftrace.analysis.request import whole_model_device
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.loads import was_read_before
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.whose import loads_ended_well
from hftrace.schema.trace import Trace

LAZY_SHARE = 0.5
"""Share of the weights that may be maps alone that must be missing from the process before they are."""
TELLING_BYTES = 64_000_000
"""Fewer bytes of maps are hidden in what a process grows by for itself: a load of 4 MB, all of it mapped, has
grown by 14 MB, one of 59 MB by 26, imports aside (transformers 5.24.0, torch 2.13.0)."""
MADE = frozenset({"converted", "quantized"})
"""Provenances whose tensors are made of what was read, wherever they are."""
WRITTEN = frozenset({"initialized", "uninitialized", "computed"})
"""Provenances of tensors that the load itself has made."""
NEVER_READ = frozenset({"tied", "meta", "initialized", "uninitialized", "computed"})
"""Provenances without stored bytes of their own."""


class Moved(NamedTuple):
    """Stored bytes of some tensors."""

    read: int = 0
    """Of those that moved."""
    mapped: int = 0
    """Of those that the model has right out of the file, or behind a hook, without having been read."""
    unknown: int = 0
    """Of those of which nobody knows."""

    def plus(self, fate: int, size: int) -> "Moved":
        """Returns this with more bytes in one field."""
        return self._replace(**{self._fields[fate]: self[fate] + size})

    @property
    def state(self) -> str | None:
        """``read``, ``mapped`` or ``partly``; None where nothing is known."""
        if self.unknown or not (self.read or self.mapped):
            return None
        return "partly" if self.read and self.mapped else "read" if self.read else "mapped"


@once
def moved_by_file(trace: Trace) -> dict[tuple[int, str], Moved]:
    """Returns what was moved of each weight file, by rank and the file's name."""
    trace = as_loaded(trace)
    found: dict[tuple[int, str], Moved] = {}
    for batch in tensor_batches(trace):
        fate = fate_of(trace, batch)
        if fate is not None and batch.file is not None:
            key = (batch.rank, batch.file)
            found[key] = found.get(key, Moved()).plus(fate, stored_bytes(batch))
    return found


def stored_bytes(batch: Batch) -> int:
    """Returns what the tensors of a batch weigh in their file, as far as it is known."""
    return batch.total.stored_bytes or batch.total.bytes


def fate_of(trace: Trace, batch: Batch) -> int | None:
    """Returns the field of :class:`Moved` that a batch counts in; None where its tensors are in no file."""
    tensor_class = batch.tensor_class
    if batch.file is None or tensor_class.provenance in NEVER_READ or tensor_class.kind == "unused":
        return None
    if was_read_before(trace, batch.span):
        return None  # by the load that the model is from, which this one changed
    if not batch.read and tensor_class.provenance in (None, "unknown"):
        return None  # the load died before its turn, or nobody saw that it was used
    if not _parts(trace).isdisjoint(batch.rows):
        return 2  # a rank reads its slice of a tensor, or all of it: which was not seen
    if _was_moved(trace, batch):
        return 0
    if tensor_class.offload is not None or tensor_class.provenance == "offloaded":
        # Left in its file, behind a hook; from pickles, which have no map for it, it is written anew.
        return 1 if batch.file.endswith(".safetensors") else 2
    missing = _missing(trace).get(batch.rank)
    return 2 if missing is None else 1 if missing else 0


@once
def _parts(trace: Trace) -> frozenset[int]:
    """Returns the rows of tensors of which a rank holds a part."""
    if not trace.tensors.is_known("global_shape"):
        return frozenset()
    shapes = trace.tensors.column("global_shape")
    return frozenset(row for row, shape in enumerate(shapes) if shape is not None)


@once
def _copying(trace: Trace) -> frozenset[int]:
    """Returns the spans that copied what they were given into tensors that were there."""
    noted = zip(trace.spans.column("id"), trace.spans.column("attributes"), strict=True)
    return frozenset(span for span, facts in noted if facts.get("copied") is True)


def _was_moved(trace: Trace, batch: Batch) -> bool:
    """Returns whether tensors were read for certain."""
    tensor_class = batch.tensor_class
    place = tensor_class.device
    if place is None and tensor_class.provenance != "offloaded":  # the load died: where it was asked
        place = whole_model_device(trace)
    if place is not None and place not in ("cpu", "meta"):
        return True
    if tensor_class.provenance in MADE or batch.span in _copying(trace):
        return True
    if batch.asked and (found := arrival(trace)) is not None and found.in_background:
        return True
    stored, dtype = tensor_class.stored_dtype, tensor_class.dtype
    if dtype is None and stored is not None:
        dtype = loaded_as(0, stored, asked_dtype(trace))[0]
    return stored is not None and dtype != stored


@once
def _missing(trace: Trace) -> dict[int, int]:
    """Returns, by rank, the bytes of weights on the CPU that the process did not grow by; 0 where it did.

    A rank is left out where nobody knows: its load did not end well, its memory was not read, or it grew
    by so much as anything may have been.
    """
    if not loads_ended_well(trace):
        return {}
    index = span_index(trace)
    maps: dict[int, int] = {}
    copies: dict[int, int] = {}
    elsewhere: dict[int, int] = {}
    for batch in tensor_batches(trace):
        tensor_class = batch.tensor_class
        if was_read_before(trace, batch.span):
            continue  # what an earlier load has read may be there already
        if tensor_class.provenance in WRITTEN and tensor_class.device == "cpu":
            # Memory of its own, which is no page of a file.
            copies[batch.rank] = copies.get(batch.rank, 0) + batch.total.bytes
            continue
        if tensor_class.provenance in NEVER_READ or tensor_class.kind == "unused" or batch.file is None:
            continue
        if tensor_class.offload is not None:
            continue
        if not _was_moved(trace, batch):
            kind = maps if tensor_class.device == "cpu" and tensor_class.provenance == "checkpoint" else None
            size = batch.total.bytes
        elif tensor_class.device in ("cpu", None):
            kind, size = copies, batch.total.bytes
        else:
            # Pages that a copy to a device has touched stay in the process as long as their file is mapped.
            kind, size = elsewhere, stored_bytes(batch)
        if kind is not None:
            kind[batch.rank] = kind.get(batch.rank, 0) + size
    result: dict[int, int] = {}
    for rank in {index.lanes[row].rank for row in index.load_rows}:
        grown = grown_in(trace, [row for row in index.load_rows if index.lanes[row].rank == rank])
        if grown is not None:
            anonymous, file = grown
            held = anonymous - copies.get(rank, 0) + max(0, file - elsewhere.get(rank, 0))
            expected = maps.get(rank, 0)
            missing = expected - max(0, held)
            if expected and missing >= LAZY_SHARE * expected:
                result[rank] = missing
            elif not expected or expected >= TELLING_BYTES:
                result[rank] = 0
    return result


def grown_in(trace: Trace, loads: list[int]) -> tuple[int, int] | None:
    """Returns by how much anonymous and file-backed memory grew in loads, without what their imports took.

    None where that is not known of each of them.
    """
    index = span_index(trace)
    anonymous = file = 0
    for load in loads:
        for row in index.walk_thread([load]):
            parent = index.parents[row]
            if row != load and (
                index.phases[row] != "import" or (parent is not None and index.phases[parent] == "import")
            ):
                continue
            span = trace.spans[row]
            before = (span.rss_anon_start_bytes, span.rss_file_start_bytes)
            after = (span.rss_anon_bytes, span.rss_file_bytes)
            if before[0] is None or before[1] is None or after[0] is None or after[1] is None:
                if row == load:
                    return None
                continue
            sign = 1 if row == load else -1
            anonymous += sign * (after[0] - before[0])
            file += sign * (after[1] - before[1])
    return anonymous, file


@once
def untouched_bytes(trace: Trace) -> int:
    """Returns the bytes of weights on CPU that the process had not touched when the load returned.

    Memory-mapped weights are in the model before they are in memory:
    then the process grew by less than the weights weigh.
    """
    return sum(_missing(as_loaded(trace)).values())
