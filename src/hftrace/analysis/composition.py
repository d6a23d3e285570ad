"""What the peak of a load's memory was made of: which copies, when.

Everything comes from recorded facts: the exact watermark and the edges of the
spans, the times of the tensor ledger, and what malloc said it had free. The
moment of the peak is where the ledger holds most inside the innermost span
that has the watermark. What these do not explain is a part of its own: in a load
that was killed, above all the reads that were under way, which are recorded when they end.

Three things hold memory while weights are loaded:

*   the tensors of the model, from when they are placed (or all of them from
    when the model is built on a real device);
*   their sources: pages of a memory map that was read, or an unpickled file.
    They stay until the span that placed the tensor ends, and as long as the
    model where other weights of the same file are used right out of the map;
*   copies in flight: read and cast, not yet in the model.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from hftrace.analysis.derived import Derived
from hftrace.analysis.postmortem import asked_dtype, loaded_as
from hftrace.schema.ledger import Timeline
from hftrace.schema.model import Span

BUILT_SHARE = 0.5
"""Share of the model's bytes that must appear before the first weight is read for the model to count as
built on a real device."""
COPIED_SHARE = 0.5
"""Share of the bytes that needed no cast, above which they count as copied and not as mapped."""
TRIFLE_SHARE = 0.01
"""Share of the rise that a span may add to the peak of the one inside it without having made it."""
MADE = frozenset({"converted", "quantized", "initialized", "computed"})
"""Provenances whose tensors have memory of their own, whatever their dtype."""
ELSEWHERE = frozenset({"tied", "unused", "meta", "offloaded"})
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
    span_row = _innermost_with_peak(derived, load_row, peak - start)
    span = derived.trace.spans[span_row]
    held = _held(derived, load, load_row)
    time_ns = _fullest(held, span.start_ns, span.end_ns)
    rise = peak - start
    parts = _parts(derived, load, load_row, span, time_ns, held, rise)
    rest = parts[-1].bytes
    return Composition(
        load=load_row,
        time_ns=time_ns if held.copies else None,
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


def _innermost_with_peak(derived: Derived, row: int, rise: int) -> int:
    """Returns the deepest span on the load's thread that has the load's own watermark, but for a trifle."""
    column = derived.trace.spans.column("rss_peak_bytes")
    lanes = derived.index.lanes
    least = (column[row] or 0) - TRIFLE_SHARE * rise
    while True:
        # The first one: a neighbour that begins at the peak shares the mark, and did not make it.
        below = (
            child
            for child in derived.index.children[row]
            if lanes[child] == lanes[row] and (column[child] or 0) >= least
        )
        found = next(below, None)
        if found is None:
            return row
        row = found


# -- what holds memory, and when ----------------------------------------------------------------------


class _Copy(NamedTuple):
    """A tensor that has memory of its own in the model, and its source; bytes, and times of the trace."""

    size: int
    stored: int
    appears: int
    """When its memory is there: at the end of the read and cast, at the latest when it is placed."""
    placed: int
    read: int | None
    release: int | None
    """When its source is let go; None where that stays as long as the model."""


class _Held(NamedTuple):
    """What a load holds: the tensors that are copies, or a model that was built before."""

    copies: list[_Copy]
    built: int
    """Bytes of a model whose parameters had memory before any weight was read; 0 for another."""


def _held(derived: Derived, load: Span, load_row: int) -> _Held:
    """Returns what the tensors of a load hold in the memory of the host."""
    tensors = derived.trace.tensors
    names = ("provenance", "stored_dtype", "dtype", "stored_bytes", "bytes", "device", "rank", "file")
    times = ("read_start_ns", "read_end_ns", "placed_ns")
    mine: list[tuple[bool, int, int, str | None, int | None, int | None, int, int | None]] = []
    owners = _Owners(derived, load_row)
    groups: dict[int | None, _Group] = {}
    total = 0
    asked = asked_dtype(derived.trace)
    for provenance, stored_dtype, dtype, stored, size, device, rank, file, read, read_end, placed in zip(
        *(tensors.column(name) for name in (*names, *times)), strict=True
    ):
        if rank != load.rank or provenance in ELSEWHERE or device not in ("cpu", None):
            continue
        if provenance is None and read_end is None:
            continue  # the load ended before its turn came
        if placed is not None and not load.start_ns <= placed <= load.end_ns:
            continue
        if dtype is None and stored_dtype is not None:
            # The load ended before its model was there: what was asked for says what it made of the tensor.
            dtype, size = loaded_as(stored or 0, stored_dtype, asked)
        must = provenance in MADE or (dtype is not None and dtype != stored_dtype)
        size, stored = size or stored or 0, stored or 0
        total += size
        if placed is None and read_end is None:
            continue  # nobody knows when: what the model computes itself
        # What was read and never placed was on its way until the end.
        placed = load.end_ns + 1 if placed is None else placed
        owner = owners.at(placed)
        group = groups.setdefault(owner, _Group())
        if must:
            group.needed += size
        else:
            group.same += size
        mine.append((must, size, stored, file, read, read_end, placed, owner))
    whole = _Group(
        sum(group.needed for group in groups.values()), sum(group.same for group in groups.values())
    )
    copied = {
        owner: _copies_without_cast(derived, load_row, owner, group, whole) for owner, group in groups.items()
    }
    # A file that other weights are used right out of stays mapped as long as the model.
    kept = {file for must, _, _, file, _, _, _, owner in mine if not (must or copied[owner])}
    copies = []
    for must, size, stored, file, read, read_end, placed, owner in mine:
        if not (must or copied[owner]):
            continue
        appears = placed if read_end is None or read_end > placed else read_end
        release = None if file in kept or owner is None else derived.index.ends[owner]
        copies.append(_Copy(size, stored, appears, placed, read, release))
    return _Held(copies, total if _was_built_before(derived, load, load_row, total) else 0)


@dataclass
class _Group:
    """The tensors that one span placed, in bytes: copies for certain, and the others."""

    needed: int = 0
    same: int = 0


def _copies_without_cast(
    derived: Derived, load_row: int, owner: int | None, group: _Group, whole: _Group
) -> bool:
    """Returns whether weights that need no cast were copied all the same, from how much the process grew.

    4.50 uses the weights of one shard right out of the map, and copies those
    of the next; so each span that places weights is asked for itself, or the
    load where that has no memory at its edges.

    Args:
        derived: The trace.
        load_row: The load's row.
        owner: Row of the span that placed the tensors; None where there is none.
        group: The tensors that it placed.
        whole: All tensors of the load.
    """
    span = derived.trace.spans[load_row if owner is None else owner]
    if span.rss_anon_bytes is None or span.rss_anon_start_bytes is None:
        span, group = derived.trace.spans[load_row], whole
    if span.rss_anon_bytes is None or span.rss_anon_start_bytes is None:
        return False
    grown = span.rss_anon_bytes - span.rss_anon_start_bytes - group.needed
    if group.needed and span.phase != "shard":
        # Temporary copies leave free memory behind, which is no weight.
        grown -= _heap_growth(derived, load_row)
    return grown > COPIED_SHARE * group.same > 0


def _heap_growth(derived: Derived, load_row: int) -> int:
    """Returns how much more malloc had free when the weights were in the model than at the load's start."""
    attributes = derived.trace.spans.column("attributes")
    before = attributes[load_row].get("heap_free_start_bytes")
    after = [
        attributes[row].get("heap_free_bytes")
        for row in derived.index.walk_thread([load_row])
        if derived.index.phases[row] == "weights"
    ]
    known = [free for free in after if isinstance(free, int)]
    return max(0, known[-1] - before) if known and isinstance(before, int) else 0


def _was_built_before(derived: Derived, load: Span, load_row: int, expected: int) -> bool:
    """Returns whether the process grew by a model of ``expected`` bytes before it read any weight."""
    first = next(iter(_weights(derived, load_row)), None)
    if first is None or first.rss_anon_start_bytes is None or load.rss_anon_start_bytes is None:
        return False
    return first.rss_anon_start_bytes - load.rss_anon_start_bytes > BUILT_SHARE * expected > 0


class _Owners:
    """Which span placed a tensor: the innermost ``shard`` or ``weights`` span.

    At its end the tensor's source is let go.
    """

    def __init__(self, derived: Derived, load_row: int) -> None:
        index = derived.index
        self._timeline = Timeline(
            (row, index.starts[row], index.ends[row])
            for row in index.walk_thread([load_row])
            if index.phases[row] in ("shard", "weights")
        )

    def at(self, placed: int) -> int | None:
        """Returns the row of the span around a time; None outside of all."""
        return self._timeline.innermost(placed)


def _fullest(held: _Held, start: int, end: int) -> int:
    """Returns the time between two at which most is held.

    Between two releases of sources the sum only grows (a copy that becomes a
    parameter changes nothing), so it is greatest right before one of them, or
    at the end.
    """
    releases = {copy.release for copy in held.copies if copy.release is not None}
    candidates = sorted({release - 1 for release in releases if start < release <= end} | {end})
    changes = [0] * (len(candidates) + 1)
    for copy in held.copies:
        if not held.built:
            changes[bisect_left(candidates, copy.appears)] += copy.size
        if copy.read is not None:
            changes[bisect_left(candidates, copy.read)] += copy.stored
            if copy.release is not None:
                changes[bisect_left(candidates, copy.release)] -= copy.stored
    levels = list(accumulate(changes[:-1]))
    highest = max(levels)
    latest = candidates[levels.index(highest)]
    # Nothing changes any more after the last thing that happened before.
    came = [
        time
        for copy in held.copies
        for time in (copy.appears, copy.placed, copy.read)
        if time is not None and start <= time <= latest
    ]
    return max(came, default=latest)


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
    imports = max(0, imports)
    anon = file = 0
    at_anon, at_file = load.rss_anon_start_bytes or 0, load.rss_file_start_bytes or 0
    for weights in _weights(derived, load_row):
        if weights.start_ns >= until:
            continue
        if weights.rss_anon_start_bytes is None:
            return _Growth(imports, 0, 0)  # nobody can tell the weights from what is no weight
        anon += weights.rss_anon_start_bytes - at_anon
        file += (weights.rss_file_start_bytes or 0) - at_file
        if weights.end_ns >= until or weights.rss_anon_bytes is None:
            break
        at_anon, at_file = weights.rss_anon_bytes, weights.rss_file_bytes or 0
    else:
        # The peak lies before or behind the weights: what came until then counts too.
        anon += (peak_span.rss_anon_bytes or at_anon) - at_anon
        file += (peak_span.rss_file_bytes or at_file) - at_file
    return _Growth(imports, max(0, anon - imports), max(0, file))


def _parts(
    derived: Derived,
    load: Span,
    load_row: int,
    span: Span,
    time_ns: int,
    held: _Held,
    rise: int,
) -> list[Part]:
    """Returns what a rise of that many bytes was made of."""
    sums: dict[str, list[int]] = {"parameters": [held.built, 0], "sources": [0, 0], "copies": [0, 0]}
    for copy in held.copies:
        if copy.appears <= time_ns and not held.built:
            total = sums["parameters" if copy.placed <= time_ns else "copies"]
            total[0] += copy.size
            total[1] += 1
        elif copy.placed <= time_ns:
            sums["parameters"][1] += 1
        if (
            copy.read is not None
            and copy.read <= time_ns
            and (copy.release is None or time_ns < copy.release)
        ):
            sums["sources"][0] += copy.stored
            sums["sources"][1] += 1
    growth = _growth(derived, load, load_row, span)
    # A model that was built on a real device grew there: those are its parameters.
    objects = max(0, growth.objects_anon - held.built)
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
    if rest < 0 and source_memory == "file":
        # Pages of a map need not all be in memory, and the watermark says how many were at most.
        there = max(0, sums["sources"][0] + rest)
        rest += sums["sources"][0] - there
        sums["sources"][0] = there
        parts[1] = parts[1]._replace(bytes=there)
    explained = growth.file + (sums["sources"][0] if source_memory == "file" else 0)
    mapped = max(0, min(rest, files.peak - explained))
    parts.append(Part("other-mapped", "mapped weights that were touched", mapped, "file"))
    passing = max(0, rest - mapped) if _in_import(derived, span) else 0
    parts.append(Part("imports", "what an import needed for itself alone", passing, "both"))
    rest -= mapped + passing
    reserve = max(0, min(rest, _heap_growth(derived, load_row)))
    parts.append(Part("reserve", "freed, and kept by malloc", reserve, "anonymous"))
    return [part for part in parts if part.bytes] + [Part("rest", "not explained", rest - reserve, "both")]


def _in_import(derived: Derived, span: Span) -> bool:
    """Returns whether a span is an import, or lies in one: it reads no weights, and its peak is its own."""
    row: int | None = derived.index.row_of[span.id]
    while row is not None:
        if derived.index.phases[row] == "import":
            return True
        row = derived.index.parents[row]
    return False


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
