"""What the peak of a load's memory was made of: which copies, when.

Everything comes from recorded facts: the exact watermark and the edges of the
spans, the times of the tensor ledger, and what malloc said it had free. The
moment of the peak is where the ledger holds most inside the innermost span
that has the watermark. What these do not explain is a part of its own.

Three things hold memory while weights are loaded:

*   the tensors of the model, from when they are placed (or all of them from
    when the model is built on a real device);
*   their sources: pages of a memory map that was read, or an unpickled file.
    They stay until the span that placed the tensor ends, and as long as the
    model where other weights of the same file are used right out of the map;
*   copies in flight: read and cast, not yet in the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from hftrace.analysis.derived import Derived
from hftrace.schema.ledger import Timeline
from hftrace.schema.model import Span

BUILT_SHARE = 0.5
"""Share of the model's bytes that must appear before the first weight is read for the model to count as
built on a real device."""
COPIED_SHARE = 0.5
"""Share of the bytes that needed no cast, above which they count as copied and not as mapped."""
MADE = frozenset({"converted", "quantized", "initialized", "computed"})
"""Provenances whose tensors have memory of their own, whatever their dtype."""
ELSEWHERE = frozenset({"tied", "unused", "meta", "offloaded", None})
"""Provenances without memory of their own in the model."""


class Part(NamedTuple):
    """One part of a peak."""

    kind: str
    """``before, imports, objects, parameters, copies, sources, other-mapped, reserve`` or ``rest``."""
    label: str
    bytes: int
    memory: str
    """``anonymous``, ``file``, ``both``, or the device's name."""
    tensors: int | None = None


@dataclass(frozen=True)
class Composition:
    """What the memory of a process was made of at its peak during one load; bytes."""

    load: int
    """Row of the load's span."""
    time_ns: int | None
    """When the peak was, as well as the ledger tells; None where it tells nothing."""
    span: int | None
    """Row of the innermost span with the peak."""
    peak_bytes: int
    start_bytes: int
    parts: list[Part]
    """They add up to the peak."""
    explained: float | None
    """Share of the rise since the load's start that is not ``rest``; None where nothing rose."""


class _Held(NamedTuple):
    """Memory that one tensor holds from one time up to and without another; times are of the trace."""

    kind: str
    bytes: int
    start: int
    end: int | None
    """None where it is held for as long as the model."""

    def at(self, time_ns: int) -> bool:
        """Returns whether it is held at a time."""
        return self.start <= time_ns and (self.end is None or time_ns < self.end)


class _Growth(NamedTuple):
    """How a process grew outside of the weights, in bytes."""

    imports_anon: int
    objects_anon: int
    file: int


def composition(derived: Derived, load_row: int) -> Composition | None:
    """Returns what the peak of a load was made of.

    Args:
        derived: The trace.
        load_row: Row of an outermost load.

    Returns:
        None where the trace has no exact peak or no memory at the load's start.
    """
    load = derived.trace.spans[load_row]
    start = _total(load.rss_anon_start_bytes, load.rss_file_start_bytes)
    if start is None or load.rss_peak_bytes is None:
        return None
    peak = max(load.rss_peak_bytes, start)
    span_row = _innermost_with_peak(derived, load_row)
    span = derived.trace.spans[span_row]
    held = _held(derived, load, load_row)
    time_ns = _fullest(held, span.start_ns, span.end_ns)
    rise = peak - start
    parts = _parts(derived, load, load_row, span, time_ns, held, rise)
    rest = parts[-1].bytes
    return Composition(
        load=load_row,
        time_ns=time_ns if held else None,
        span=span_row,
        peak_bytes=peak,
        start_bytes=start,
        parts=[Part("before", "before the load: interpreter and libraries", start, "both"), *parts],
        explained=max(0.0, 1 - abs(rest) / rise) if rise > 0 else None,
    )


def device_parts(derived: Derived, load_row: int) -> dict[str, list[Part]]:
    """Returns, by device, what the peak of its allocator was made of during a load.

    Parts add up to the greatest number of bytes that were allocated; ``reserve`` comes on top: what the
    allocator had taken from the device beyond that. From the allocators' figures, tested by hand-made
    traces only.
    """
    load = derived.trace.spans[load_row]
    sizes: dict[str, list[int]] = {}
    tensors = derived.trace.tensors
    names = ("device", "bytes", "provenance", "rank")
    for device, size, provenance, rank in zip(*(tensors.column(name) for name in names), strict=True):
        if device and size and provenance not in ELSEWHERE and rank == load.rank:
            sizes.setdefault(device, []).append(size)
    parts: dict[str, list[Part]] = {}
    for device, peak in sorted((load.device_peak_bytes or {}).items()):
        # A model on ``cuda`` without a number is on the only device that there is.
        mine = sizes.get(device) or sizes.get(device.partition(":")[0]) or []
        weights = min(peak, sum(mine))
        reserved = (load.device_reserved_bytes or {}).get(device, 0)
        parts[device] = [
            Part("parameters", "parameters and buffers of the model", weights, device, len(mine)),
            Part("rest", "copies in flight, and what was there before", peak - weights, device),
            Part("reserve", "taken from the device, not in use", max(0, reserved - peak), device),
        ]
    return parts


def main_load(derived: Derived) -> int | None:
    """Returns the load whose peak is greatest, which is the one to ask about; None where there is none."""
    rows = derived.index.load_rows
    column = derived.trace.spans.column("rss_peak_bytes")
    return max(rows, key=lambda row: (column[row] or 0, -row), default=None)


def _total(*parts: int | None) -> int | None:
    return None if any(part is None for part in parts) else sum(part or 0 for part in parts)


def _innermost_with_peak(derived: Derived, row: int) -> int:
    """Returns the deepest span on the load's thread that has the load's own watermark."""
    column = derived.trace.spans.column("rss_peak_bytes")
    lanes = derived.index.lanes
    while True:
        # The first one: a neighbour that begins at the peak shares the mark, and did not make it.
        below = (
            child
            for child in derived.index.children[row]
            if column[child] == column[row] and lanes[child] == lanes[row]
        )
        found = next(below, None)
        if found is None:
            return row
        row = found


# -- what holds memory, and when ----------------------------------------------------------------------


class _Tensor(NamedTuple):
    """The columns of the tensor ledger that say what is held, and when."""

    provenance: str | None
    stored_dtype: str | None
    dtype: str | None
    stored_bytes: int | None
    bytes: int | None
    device: str | None
    file: str | None
    read_start_ns: int | None
    read_end_ns: int | None
    placed_ns: int | None
    rank: int

    @property
    def size(self) -> int:
        """Bytes in the model; the stored ones where the load ended before that was known."""
        return self.bytes or self.stored_bytes or 0

    @property
    def must_be_copied(self) -> bool:
        """Whether it has memory of its own for certain, and is no window into a mapped file."""
        return self.provenance in MADE or (self.dtype is not None and self.dtype != self.stored_dtype)


def _tensors(derived: Derived, load: Span) -> list[_Tensor]:
    """Returns the tensors of a load that are in the memory of the host."""
    tensors = derived.trace.tensors
    rows = map(_Tensor._make, zip(*(tensors.column(name) for name in _Tensor._fields), strict=True))
    return [
        row
        for row in rows
        if row.rank == load.rank
        and row.provenance not in ELSEWHERE
        and row.device in ("cpu", None)
        and (row.placed_ns is None or load.start_ns <= row.placed_ns <= load.end_ns)
    ]


def _held(derived: Derived, load: Span, load_row: int) -> list[_Held]:
    """Returns what the tensors of a load hold: copies, sources, and themselves."""
    mine = _tensors(derived, load)
    placed_times = [row.placed_ns for row in mine if row.placed_ns is not None]
    if not placed_times:
        return []
    releases = _Releases(derived, load_row)
    built = _built_ns(derived, load, load_row, sum(row.bytes or 0 for row in mine))
    copied = _copies_without_cast(load, mine)
    # A file that other weights are used right out of stays mapped as long as the model.
    kept = {row.file for row in mine if not (copied or row.must_be_copied)}
    held = [_Held("parameters", sum(row.bytes or 0 for row in mine), built, None)] if built else []
    for row in mine:
        placed, read, read_end = row.placed_ns, row.read_start_ns, row.read_end_ns
        if placed is None or not (copied or row.must_be_copied):
            continue
        if not built:
            held.append(_Held("parameters", row.size, placed, None))
            if read_end is not None and read_end < placed:
                held.append(_Held("copies", row.size, read_end, placed))
        if row.stored_bytes and read is not None:
            release = None if row.file in kept else releases.after(placed)
            held.append(_Held("sources", row.stored_bytes, min(read, placed), release))
    return held


def _copies_without_cast(load: Span, rows: list[_Tensor]) -> bool:
    """Returns whether weights that need no cast were copied all the same, from how much the process grew."""
    if load.rss_anon_bytes is None or load.rss_anon_start_bytes is None:
        return False
    needed = sum(row.size for row in rows if row.must_be_copied)
    same = sum(row.size for row in rows) - needed
    grown = load.rss_anon_bytes - load.rss_anon_start_bytes - needed
    if any(row.provenance in ("converted", "quantized") for row in rows):
        # A conversion's temporary copies leave free memory behind, which is no weight.
        grown -= _heap_growth(load.attributes.get("heap_free_start_bytes"), load.attributes)
    return grown > COPIED_SHARE * same > 0


def _heap_growth(before: object, attributes: dict[str, Any]) -> int:
    """Returns how much more malloc had free at the end of a span than ``before``."""
    after = attributes.get("heap_free_bytes")
    return max(0, after - before) if isinstance(after, int) and isinstance(before, int) else 0


def _built_ns(derived: Derived, load: Span, load_row: int, expected: int) -> int | None:
    """Returns when the weights of a model began that had memory for ``expected`` bytes before; else None."""
    first = next(iter(_weights(derived, load_row)), None)
    if first is None or first.rss_anon_start_bytes is None or load.rss_anon_start_bytes is None:
        return None
    grown = first.rss_anon_start_bytes - load.rss_anon_start_bytes
    return first.start_ns if expected and grown > BUILT_SHARE * expected else None


class _Releases:
    """When the source of a tensor is let go: at the end of the shard, or of the weights, that placed it."""

    def __init__(self, derived: Derived, load_row: int) -> None:
        index = derived.index
        self._timeline = Timeline(
            (row, index.starts[row], index.ends[row])
            for row in index.walk_thread([load_row])
            if index.phases[row] in ("shard", "weights")
        )
        self._ends = index.ends

    def after(self, placed: int) -> int | None:
        """Returns the end of the innermost span around a time; None outside of all."""
        row = self._timeline.innermost(placed)
        return None if row is None else self._ends[row]


def _fullest(held: list[_Held], start: int, end: int) -> int:
    """Returns the time between two at which most is held; the end where nothing is held at all."""
    level = sum(item.bytes for item in held if item.at(start))
    changes: list[tuple[int, int]] = []
    for item in held:
        if start < item.start <= end:
            changes.append((item.start, item.bytes))
        if item.end is not None and start < item.end <= end and item.end > item.start:
            changes.append((item.end, -item.bytes))
    changes.sort()
    best, when = level, start
    for number, (time, change) in enumerate(changes):
        level += change
        # A copy becomes a parameter in one moment: only what is left after all of it counts.
        settled = number + 1 == len(changes) or changes[number + 1][0] != time
        if settled and level >= best:
            best, when = level, time
    return when if best else end


# -- the parts ----------------------------------------------------------------------------------------


def _weights(derived: Derived, load_row: int) -> list[Span]:
    """Returns the outermost ``weights`` spans of a load, in order."""
    index = derived.index
    nearest = index.nearest(("weights",))
    rows = []
    for row in index.walk_thread([load_row]):
        parent = index.parents[row]
        inside = parent is not None and nearest[parent] is not None
        if index.phases[row] == "weights" and not inside:
            rows.append(row)
    return [derived.trace.spans[row] for row in sorted(rows, key=lambda row: index.starts[row])]


def _growth(derived: Derived, load: Span, load_row: int, peak_span: Span) -> _Growth:
    """Returns how the process grew until the end of ``peak_span`` in phases that read no weights."""
    spans, index, until = derived.trace.spans, derived.index, peak_span.end_ns
    imports = 0
    for row in index.walk_thread([load_row]):
        parent = index.parents[row]
        nested = parent is not None and index.phases[parent] == "import"
        if index.phases[row] == "import" and index.ends[row] <= until and not nested:
            span = spans[row]
            imports += (span.rss_anon_bytes or 0) - (span.rss_anon_start_bytes or 0)
    anon = file = 0
    at_anon, at_file = load.rss_anon_start_bytes or 0, load.rss_file_start_bytes or 0
    for weights in _weights(derived, load_row):
        if weights.start_ns >= until or weights.rss_anon_start_bytes is None:
            continue
        anon += weights.rss_anon_start_bytes - at_anon
        file += (weights.rss_file_start_bytes or 0) - at_file
        at_anon, at_file = weights.rss_anon_bytes or 0, weights.rss_file_bytes or 0
        if weights.end_ns >= until:
            break
    else:
        # The peak lies before or behind the weights: what came until then counts too.
        anon += (peak_span.rss_anon_bytes or at_anon) - at_anon
        file += (peak_span.rss_file_bytes or at_file) - at_file
    imports = max(0, imports)
    return _Growth(imports, max(0, anon - imports), max(0, file))


def _parts(
    derived: Derived,
    load: Span,
    load_row: int,
    span: Span,
    time_ns: int,
    held: list[_Held],
    rise: int,
) -> list[Part]:
    """Returns what a rise of that many bytes was made of."""
    sums: dict[str, list[int]] = {"parameters": [0, 0], "sources": [0, 0], "copies": [0, 0]}
    for item in held:
        if item.at(time_ns):
            total = sums[item.kind]
            total[0] += item.bytes
            total[1] += 1
    growth = _growth(derived, load, load_row, span)
    objects = growth.objects_anon
    if _built_ns(derived, load, load_row, sums["parameters"][0]) is not None:
        # A model that was built on a real device grew there: those are its parameters.
        objects = max(0, objects - sums["parameters"][0])
    files = _file_growth(derived, load, load_row, span)
    source_memory = "file" if files.load >= 0.5 * sums["sources"][0] else "anonymous"
    parts = [
        Part("parameters", "parameters and buffers of the model", sums["parameters"][0], "anonymous"),
        Part("sources", "their sources in the checkpoint", sums["sources"][0], source_memory),
        Part("copies", "copies on their way into the model", sums["copies"][0], "anonymous"),
        Part("imports", "modules imported by the load", growth.imports_anon, "anonymous"),
        Part("objects", "configuration, modules and other objects", objects, "anonymous"),
        Part("imports", "code of libraries used for the first time", growth.file, "file"),
    ]
    parts = [part._replace(tensors=sums[part.kind][1]) if part.kind in sums else part for part in parts]
    rest = rise - sum(part.bytes for part in parts)
    explained = growth.file + (sums["sources"][0] if source_memory == "file" else 0)
    mapped = max(0, min(rest, files.peak - explained))
    parts.append(Part("other-mapped", "mapped weights that were touched", mapped, "file"))
    reserve = max(0, min(rest - mapped, _reserve(derived, load_row, time_ns)))
    parts.append(Part("reserve", "freed, and kept by malloc", reserve, "anonymous"))
    return [part for part in parts if part.bytes] + [
        Part("rest", "not explained", rest - mapped - reserve, "both")
    ]


class _FileGrowth(NamedTuple):
    """The greatest growth of file-backed memory since the load's start, in bytes."""

    load: int
    peak: int
    """Inside the span that has the peak."""


def _file_growth(derived: Derived, load: Span, load_row: int, span: Span) -> _FileGrowth:
    spans, samples, index = derived.trace.spans, derived.trace.samples, derived.index
    first = load.rss_file_start_bytes or 0
    starts, ends = spans.column("rss_file_start_bytes"), spans.column("rss_file_bytes")
    points = [
        (time, size)
        for row in index.walk([load_row])
        for time, size in ((index.starts[row], starts[row]), (index.ends[row], ends[row]))
    ]
    points += [
        (time, size)
        for time, size, pid in zip(
            samples.column("time_ns"), samples.column("rss_file_bytes"), samples.column("pid"), strict=True
        )
        if pid in (None, load.pid)
    ]
    inside = [size for time, size in points if size is not None and load.start_ns <= time <= load.end_ns]
    near = [size for time, size in points if size is not None and span.start_ns <= time <= span.end_ns]
    return _FileGrowth(max(inside, default=first) - first, max(near, default=first) - first)


def _reserve(derived: Derived, load_row: int, time_ns: int) -> int:
    """Returns how much more than at the start malloc had free, at the next edge that says it."""
    attributes, index = derived.trace.spans.column("attributes"), derived.index
    later = [
        (index.ends[row], row)
        for row in index.walk_thread([load_row])
        if index.ends[row] >= time_ns and "heap_free_bytes" in attributes[row]
    ]
    if not later:
        return 0
    return _heap_growth(attributes[load_row].get("heap_free_start_bytes"), attributes[min(later)[1]])
