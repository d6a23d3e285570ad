"""What holds memory while weights are loaded, and when: the tensor ledger on the axis of time.

Three things do:

*   the tensors of the model, from when they are placed (or all of them from
    when the model is built on a real device);
*   their sources: pages of a memory map that was read, or an unpickled file.
    They stay until the span that placed the tensor ends, and as long as the
    model where other weights of the same file are used right out of the map;
*   copies in flight: read and cast, not yet in the model.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.dtypes import asked_dtype, loaded_as
from hftrace.analysis.ledger.tensors import Batch, TensorClass, Total, take, tensor_batches
from hftrace.analysis.request import whole_model_device
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.spans import span_index
from hftrace.schema.model import Span
from hftrace.schema.trace import Trace

BUILT_SHARE = 0.5
"""Share of the model's bytes that must appear before the first weight is read for the model to count as
built on a real device."""
COPIED_SHARE = 0.5
"""Share of the bytes that needed no cast, above which they count as copied and not as mapped."""
MADE = frozenset({"converted", "quantized", "initialized", "computed"})
"""Provenances whose tensors have memory of their own, whatever their dtype."""
ELSEWHERE = frozenset({"tied", "unused", "meta", "offloaded"})
"""Provenances without memory of their own in the model."""


class Parcel(NamedTuple):
    """Tensors of one batch that one span placed; bytes, and times of the trace, one item a tensor."""

    file: str | None
    owner: int | None
    """Row of the ``shard`` or ``weights`` span that placed them: at its end their sources are let go."""
    owns_memory: bool
    """Whether they have memory of their own for certain."""
    sizes: list[int]
    stored: list[int]
    appear: list[int]
    """When their memory is there: at the end of the read and cast, at the latest when they are placed."""
    placed: list[int]
    read: list[int]
    """When their sources are there; empty where nobody knows."""
    release: int | None = None
    """When their sources are let go; None where these stay as long as the model."""
    view: bool = False
    """Whether they were handed out as parts of an allocation, which stays for the sake of each of them."""


class HeldMemory(NamedTuple):
    """What a load holds: the tensors that are copies, or a model that was built before."""

    copies: list[Parcel]
    """Tensors that have memory of their own in the model."""
    built: int
    """Bytes of a model whose parameters had memory before any weight was read; 0 for another."""
    unquantized: Sequence[tuple[int, int, int]] = ()
    """From when until when a tensor that is quantised was there in full precision as well, and its bytes.

    Where that is the stored dtype, it is the file's own pages: these are sources."""


def held(trace: Trace, load_row: int) -> HeldMemory:
    """Returns what the tensors of a load hold in the memory of the host, as it left them."""
    trace = as_loaded(trace)
    builder = _ParcelBuilder(trace, load_row)
    for batch in tensor_batches(trace):
        builder.add(batch)
    parcels = builder.parcels
    whole = _Group()
    groups: dict[int | None, _Group] = {}
    for parcel in parcels:
        for group in (whole, groups.setdefault(parcel.owner, _Group())):
            group.add(parcel)
    copied = {
        owner: _copies_without_cast(trace, load_row, owner, group, whole) for owner, group in groups.items()
    }
    # A file that other weights are used right out of stays mapped as long as the model.
    kept = {
        parcel.file for parcel in parcels if parcel.view or not (parcel.owns_memory or copied[parcel.owner])
    }
    ends = span_index(trace).ends
    copies = [
        parcel if parcel.file in kept or parcel.owner is None else parcel._replace(release=ends[parcel.owner])
        for parcel in parcels
        if parcel.owns_memory or copied[parcel.owner]
    ]
    total = whole.needed + whole.same + builder.timeless_bytes
    built = total if _was_built_before(trace, load_row, total) else 0
    return HeldMemory(copies, built, builder.unquantized)


class _ParcelBuilder:
    """Sorts the tensors of a load into parcels.

    Args:
        trace: The trace.
        load_row: Row of the load.
    """

    def __init__(self, trace: Trace, load_row: int) -> None:
        self.parcels: list[Parcel] = []
        self.timeless_bytes = 0
        """Bytes of the tensors of which nobody knows when they came: what the model computes itself."""
        self.unquantized: list[tuple[int, int, int]] = []
        index = span_index(trace)
        self._column = trace.tensors.column
        self._rank = index.lanes[load_row].rank
        self._start, self._end = index.starts[load_row], index.ends[load_row]
        self._asked = asked_dtype(trace)
        came = arrival(trace)
        self._in_background = came is not None and came.in_background
        self._shared = came is not None and came.shared is not False
        # A load that failed has not said where its tensors are: where they were asked.
        self._host = {"cpu", None} if whole_model_device(trace) in ("cpu", None) else {"cpu"}
        # Which span was the innermost that places weights, from when on; outside of the load there is none.
        nearest = index.nearest(("shard", "weights"))
        changes = [(start, nearest[row]) for start, _, row in sorted(index.exclusive([load_row]))]
        changes.append((self._end, None))
        self._changes = [time for time, _ in changes]
        self._owners = [owner for _, owner in changes]

    def add(self, batch: Batch) -> None:
        """Adds those tensors of a batch that the load holds in the memory of the host."""
        tensor_class = batch.tensor_class
        if (
            batch.rank != self._rank
            or tensor_class.provenance in ELSEWHERE
            or tensor_class.device not in self._host
        ):
            return
        placed, ends = self._column("placed_ns"), self._column("read_end_ns")
        rows = [row for row in batch.rows if placed[row] is None or self._start <= placed[row] <= self._end]
        if tensor_class.provenance is None:
            # The load ended before the others had their turn.
            rows = [row for row in rows if ends[row] is not None]
        timed = [row for row in rows if placed[row] is not None or ends[row] is not None]
        if len(timed) < len(rows):
            timeless = [row for row in rows if placed[row] is None and ends[row] is None]
            self.timeless_bytes += sum(self._sizes(tensor_class, timeless))
        for owner, mine in self._by_owner(timed):
            self.parcels.append(self._parcel(batch, owner, mine))
        if tensor_class.provenance == "quantized" and tensor_class.stored_dtype is not None:
            self._add_unquantized(tensor_class.stored_dtype, timed)

    def _add_unquantized(self, stored_dtype: str, rows: list[int]) -> None:
        """Adds when tensors that are quantised were there in the dtype that they are cast to before."""
        dtype, _ = loaded_as(0, stored_dtype, self._asked)
        if dtype == stored_dtype:
            return
        sizes, ends = take(self._column("stored_bytes"), rows), take(self._column("read_end_ns"), rows)
        for placed, end, size in zip(self._placed(rows), ends, sizes, strict=True):
            if end is not None and size:
                self.unquantized.append((end, placed, loaded_as(size, stored_dtype, self._asked)[1]))

    def _placed(self, rows: list[int]) -> list[int]:
        """Returns when tensors were placed; what never was, was on its way until the end."""
        return [self._end + 1 if time is None else time for time in take(self._column("placed_ns"), rows)]

    def _by_owner(self, rows: list[int]) -> Iterable[tuple[int | None, list[int]]]:
        """Returns rows by the span that placed them; mostly that is one for all."""
        times = self._placed(rows)
        if not times:
            return ()
        first, last = (bisect_right(self._changes, time) - 1 for time in (min(times), max(times)))
        if len(set(self._owners[first : last + 1])) == 1:
            return [(self._owners[first], rows)]
        found: dict[int | None, list[int]] = {}
        for row, time in zip(rows, times, strict=True):
            found.setdefault(self._owners[bisect_right(self._changes, time) - 1], []).append(row)
        return found.items()

    def _parcel(self, batch: Batch, owner: int | None, rows: list[int]) -> Parcel:
        tensor_class = batch.tensor_class
        placed = self._placed(rows)
        ends = take(self._column("read_end_ns"), rows)
        dtype = tensor_class.dtype
        if dtype is None and tensor_class.stored_dtype is not None:
            dtype, _ = loaded_as(0, tensor_class.stored_dtype, self._asked)
        made = tensor_class.provenance in MADE or (dtype is not None and dtype != tensor_class.stored_dtype)
        read = take(self._column("read_start_ns"), rows) if batch.read else []
        if batch.asked and (made or not self._shared):
            # A parameter that is a part of what was handed out has no source besides.
            read = take(self._column("asked_ns"), rows)
        return Parcel(
            file=batch.file,
            owner=owner,
            owns_memory=made or (batch.asked and self._in_background),
            view=batch.asked and not made and self._shared,
            sizes=self._sizes(tensor_class, rows),
            stored=[size or 0 for size in take(self._column("stored_bytes"), rows)],
            appear=[
                time if end is None or end > time else end for time, end in zip(placed, ends, strict=True)
            ],
            placed=placed,
            read=read,
        )

    def _sizes(self, tensor_class: TensorClass, rows: list[int]) -> list[int]:
        """Returns the bytes of tensors of one class in the model."""
        sizes, stored = take(self._column("bytes"), rows), take(self._column("stored_bytes"), rows)
        if tensor_class.dtype is None and tensor_class.stored_dtype is not None:
            # The load ended before its model was there: what was asked for says what it made of the tensors.
            sizes = [loaded_as(size or 0, tensor_class.stored_dtype, self._asked)[1] for size in stored]
        return [size or in_file or 0 for size, in_file in zip(sizes, stored, strict=True)]


@dataclass
class _Group:
    """The tensors that one span placed, in bytes: copies for certain, and the others."""

    needed: int = 0
    same: int = 0

    def add(self, parcel: Parcel) -> None:
        """Adds what a parcel weighs."""
        if parcel.owns_memory:
            self.needed += sum(parcel.sizes)
        else:
            self.same += sum(parcel.sizes)


def _copies_without_cast(
    trace: Trace, load_row: int, owner: int | None, group: _Group, whole: _Group
) -> bool:
    """Returns whether weights that need no cast were copied all the same, from how much the process grew.

    4.50 uses the weights of one shard right out of the map, and copies those
    of the next; so each span that places weights is asked for itself, or the
    load where that has no memory at its edges.

    Args:
        trace: The trace.
        load_row: The load's row.
        owner: Row of the span that placed the tensors; None where there is none.
        group: The tensors that it placed.
        whole: All tensors of the load.
    """
    span = trace.spans[load_row if owner is None else owner]
    if span.rss_anon_bytes is None or span.rss_anon_start_bytes is None:
        span, group = trace.spans[load_row], whole
    if span.rss_anon_bytes is None or span.rss_anon_start_bytes is None:
        return False
    grown = span.rss_anon_bytes - span.rss_anon_start_bytes - group.needed
    if group.needed and span.phase != "shard":
        # Temporary copies leave free memory behind, which is no weight.
        grown -= heap_growth(trace, load_row)
    return grown > COPIED_SHARE * group.same > 0


def heap_growth(trace: Trace, load_row: int) -> int:
    """Returns how much more malloc had free when the weights were in the model than at the load's start."""
    index, attributes = span_index(trace), trace.spans.column("attributes")
    before = attributes[load_row].get("heap_free_start_bytes")
    after = [
        attributes[row].get("heap_free_bytes")
        for row in index.walk_thread([load_row])
        if index.phases[row] == "weights"
    ]
    known = [free for free in after if isinstance(free, int)]
    return max(0, known[-1] - before) if known and isinstance(before, int) else 0


def _was_built_before(trace: Trace, load_row: int, expected: int) -> bool:
    """Returns whether the process grew by a model of ``expected`` bytes before it read any weight."""
    load = trace.spans[load_row]
    first = next(iter(weights_spans(trace, load_row)), None)
    if first is None or first.rss_anon_start_bytes is None or load.rss_anon_start_bytes is None:
        return False
    return first.rss_anon_start_bytes - load.rss_anon_start_bytes > BUILT_SHARE * expected > 0


def weights_spans(trace: Trace, load_row: int) -> list[Span]:
    """Returns the outermost ``weights`` spans of a load, in order."""
    index = span_index(trace)
    nearest = index.nearest(("weights",))
    rows = []
    for row in index.walk_thread([load_row]):
        parent = index.parents[row]
        inside = parent is not None and nearest[parent] is not None
        if index.phases[row] == "weights" and not inside:
            rows.append(row)
    return [trace.spans[row] for row in sorted(rows, key=lambda row: index.starts[row])]


# -- on the axis of time ------------------------------------------------------------------------------


def time_of_maximum(load: HeldMemory, start: int, end: int) -> int:
    """Returns the time between two at which most is held.

    Between two releases of sources the sum only grows (a copy that becomes a
    parameter changes nothing), so it is greatest right before one of them, or
    at the end.
    """
    releases = {parcel.release for parcel in load.copies if parcel.release is not None}
    candidates = sorted({release - 1 for release in releases if start < release <= end} | {end})
    changes = [0] * (len(candidates) + 1)
    for parcel in load.copies:
        if not load.built:
            _book(changes, candidates, parcel.appear, parcel.sizes)
        _book(changes, candidates, parcel.read, parcel.stored)
        if parcel.read and parcel.release is not None:
            changes[bisect_left(candidates, parcel.release)] -= sum(parcel.stored)
    levels = list(accumulate(changes[:-1]))
    highest = max(levels)
    latest = candidates[levels.index(highest)]
    # Nothing changes any more after the last thing that happened before.
    came = [
        _last(times, latest)
        for parcel in load.copies
        for times in (parcel.appear, parcel.placed, parcel.read)
    ]
    return max((time for time in came if time is not None and time >= start), default=latest)


def _book(changes: list[int], candidates: list[int], times: list[int], sizes: list[int]) -> None:
    """Adds each size to the change at the first candidate that is not before its time."""
    if not times:
        return
    first, last = bisect_left(candidates, min(times)), bisect_left(candidates, max(times))
    if first == last:
        changes[first] += sum(sizes)
        return
    for time, size in zip(times, sizes, strict=True):
        changes[bisect_left(candidates, time)] += size


def _last(times: list[int], until: int) -> int | None:
    """Returns the last of some times that is not after another."""
    last = max(times, default=None)
    if last is None or last <= until:
        return last
    return max((time for time in times if time <= until), default=None)


def most_unquantized(load: HeldMemory, start: int, end: int) -> int:
    """Returns the most bytes that were there in full precision at once, between two times."""
    changes = sorted(
        change
        for begun, done, size in load.unquantized
        if done > start and begun <= end
        for change in ((begun, size), (done, -size))
    )
    return max(accumulate(size for _, size in changes), default=0)


def held_at(load: HeldMemory, time_ns: int) -> dict[str, Total]:
    """Returns what a load held at a time: its ``parameters``, ``copies`` in flight, and their ``sources``."""
    parameters, copies, sources = Total(), Total(), Total()
    for parcel in load.copies:
        _count(parameters, parcel.placed, parcel.sizes, time_ns)
        _count(copies, parcel.appear, parcel.sizes, time_ns)
        if parcel.release is None or time_ns < parcel.release:
            _count(sources, parcel.read, parcel.stored, time_ns)
    # What was placed has appeared before, and is no longer on its way.
    copies = Total(copies.count - parameters.count, copies.bytes - parameters.bytes)
    if load.built:
        parameters, copies = Total(parameters.count, load.built), Total()
    return {"parameters": parameters, "copies": copies, "sources": sources}


def _count(total: Total, times: list[int], sizes: list[int], until: int) -> None:
    """Adds the tensors whose time has come; without times, none has."""
    if not times:
        return
    if max(times) > until:
        sizes = [size for time, size in zip(times, sizes, strict=True) if time <= until]
    total.count += len(sizes)
    total.bytes += sum(sizes)
