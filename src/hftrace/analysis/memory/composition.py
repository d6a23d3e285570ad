"""What the peak of a load's memory was made of: which copies, when.

Everything comes from recorded facts: the exact watermark and the edges of the
spans, the times of the tensor ledger, and what malloc said it had free. The
moment of the peak is where the ledger holds most inside the innermost span
that has the watermark. What these do not explain is a part of its own: in a load
that was killed, above all the reads that were under way, which are recorded when they end.
"""

from collections.abc import Iterable
from typing import NamedTuple

from hftrace.analysis.ledger.merges import merges
from hftrace.analysis.memory.holding import (
    HeldMemory,
    heap_growth,
    held,
    held_at,
    most_unquantized,
    time_of_maximum,
    weights_spans,
)
from hftrace.analysis.memory.readings import Reading, between
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.once import once
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.loads import trace_of_row
from hftrace.analysis.time.spans import span_index
from hftrace.schema.model import Span
from hftrace.schema.trace import Trace

READING = ("weights", "shard", "convert")
"""Phases in which a load reads weights."""
TOLERANCE = 0.01
"""Share of the rise that a span may add to the peak of the one inside it without having made it."""
SUREST = ("parameters", "kept", "imports", "objects", "sources", "copies")
"""Parts of the host's peak, the surest first: the last are cut where they are more than the peak."""


class Part(NamedTuple):
    """One part of a peak."""

    kind: str
    """``before, imports, objects, parameters, kept, copies, unquantized, sources, other-mapped, unrecorded,
    reserve`` or ``rest``; of a device ``warmup``, ``scales``, ``temporary`` and ``rounding`` as well."""
    label: str
    bytes: int
    memory: str
    """``anonymous``, ``file``, ``shared``, ``both``, or the device's name."""
    tensors: int | None = None


class Composition(NamedTuple):
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
    """They add up to the peak, and none is negative."""
    explained: float | None
    """Share of the rise since the load's start that is not ``rest``; None where nothing rose."""
    overstated_bytes: int = 0
    """What is known of the load more than the process ever held: parts were cut by that."""


def fit_parts(parts: Iterable[Part], whole: int) -> tuple[list[Part], int]:
    """Returns parts that fit into a whole, and what is left of it.

    Each part is cut to what those before it leave: the surest come first. Parts with one label become one.
    """
    fitted: dict[str, Part] = {}
    for part in parts:
        size = max(0, min(part.bytes, whole))
        whole -= size
        if size and part.label in fitted:
            known = fitted[part.label]
            size += known.bytes
            if part.tensors is not None and known.tensors is not None:
                part = part._replace(tensors=part.tensors + known.tensors)
        if size:
            fitted[part.label] = part._replace(bytes=size)
    return list(fitted.values()), whole


class _Growth(NamedTuple):
    """How a process grew outside of the weights, in bytes."""

    imports_anon: int
    objects_anon: int
    file: int


def composition(trace: Trace, load_row: int) -> Composition | None:
    """Returns what the peak of a load was made of.

    Args:
        trace: The trace.
        load_row: Row of an outermost load.

    Returns:
        None where the trace has no exact peak or no memory at the load's start.
    """
    load = trace.spans[load_row]
    start = _total(load.rss_anon_start_bytes, load.rss_file_start_bytes)
    if start is None or load.rss_peak_bytes is None:
        return None
    peak = max(load.rss_peak_bytes, start)
    span_row = _innermost_with_peak(trace, load_row, peak - start)
    span = trace.spans[span_row]
    what = held(trace, load_row)
    time_ns = time_of_maximum(what, span.start_ns, span.end_ns)
    rise = peak - start
    parts, overstated = _parts(trace, load, load_row, span, time_ns, what, rise)
    rest = parts[-1].bytes
    return Composition(
        load=load_row,
        time_ns=time_ns if what.copies else None,
        span=span_row,
        peak_bytes=peak,
        start_bytes=start,
        parts=[Part("before", "before the load: interpreter and libraries", start, "both"), *parts],
        explained=max(0.0, 1 - (rest + overstated) / rise) if rise > 0 else None,
        overstated_bytes=overstated,
    )


def main_load(trace: Trace) -> int | None:
    """Returns the load whose peak is greatest, which is the one to ask about; None where there is none."""
    rows = span_index(trace).load_rows
    column = trace.spans.column("rss_peak_bytes")
    return max(rows, key=lambda row: (column[row] or 0, -row), default=None)


@once
def peak_composition(trace: Trace) -> Composition | None:
    """Returns the composition for the load that peaked highest; None where it is not known."""
    row = main_load(trace)
    return None if row is None else composition_of(trace, row)


def composition_of(trace: Trace, load_row: int) -> Composition | None:
    """Returns the composition for a load by what was asked of that one, and by its tensors alone.

    Args:
        trace: The trace, of one load or of several.
        load_row: Row of an outermost load.
    """
    own = trace_of_row(trace, load_row)
    if own is trace:
        return composition(trace, load_row)
    rows, ids = span_index(trace).row_of, span_index(own).ids
    made = composition(own, span_index(own).row_of[span_index(trace).ids[load_row]])
    if made is None:
        return None
    return made._replace(load=load_row, span=None if made.span is None else rows[ids[made.span]])


def _total(*parts: int | None) -> int | None:
    return None if any(part is None for part in parts) else sum(part or 0 for part in parts)


def _innermost_with_peak(trace: Trace, row: int, rise: int) -> int:
    """Returns the deepest span on the load's thread that has the load's own watermark, but for a trifle."""
    column = trace.spans.column("rss_peak_bytes")
    index = span_index(trace)
    lanes, children = index.lanes, index.children
    least = (column[row] or 0) - TOLERANCE * rise
    while True:
        # The first one: a neighbour that begins at the peak shares the mark, and did not make it.
        below = (
            child for child in children[row] if lanes[child] == lanes[row] and (column[child] or 0) >= least
        )
        found = next(below, None)
        if found is None:
            return row
        row = found


# -- the parts ----------------------------------------------------------------------------------------


def _growth(trace: Trace, load: Span, load_row: int, peak_span: Span) -> _Growth:
    """Returns how the process grew until the end of ``peak_span`` in phases that read no weights."""
    spans, index, until = trace.spans, span_index(trace), peak_span.end_ns
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
    for weights in weights_spans(trace, load_row):
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
    trace: Trace,
    load: Span,
    load_row: int,
    span: Span,
    time_ns: int,
    what: HeldMemory,
    rise: int,
) -> tuple[list[Part], int]:
    """Returns what a rise of that many bytes was made of, and what is known of it that does not fit in."""
    sums = held_at(what, time_ns)
    growth = _growth(trace, load, load_row, span)
    # A model that was built on a real device grew there: those are its parameters.
    objects = max(0, growth.objects_anon - what.built)
    files = _mapped_growth(trace, load, span)
    source_memory = files.memory if files.load >= 0.5 * sums["sources"].bytes else "anonymous"
    held_bytes = sums["parameters"].bytes
    if what.built and None not in (span.rss_anon_bytes, load.rss_anon_start_bytes):
        # Weights may be put into a model that was built right out of a map (4.44 to 4.46, one shard).
        grown = (span.rss_anon_bytes or 0) - (load.rss_anon_start_bytes or 0) - growth.imports_anon
        held_bytes = max(0, min(held_bytes, grown))
    came = arrival(trace)
    kept = came.kept_bytes if came is not None and sums["parameters"].bytes else 0
    parts = [
        Part("parameters", "parameters and buffers of the model", held_bytes, "anonymous"),
        Part("kept", "what allocations hold besides the weights in them", kept, "anonymous"),
        Part("sources", "their sources in the checkpoint", sums["sources"].bytes, source_memory),
        Part("copies", "copies on their way into the model", sums["copies"].bytes, "anonymous"),
        Part("imports", "modules imported by the load", growth.imports_anon, "anonymous"),
        Part("objects", "modules, configuration, new parameters", objects, "anonymous"),
        Part("imports", "code of libraries used for the first time", growth.file, "file"),
    ]
    parts = [part._replace(tensors=sums[part.kind].count) if part.kind in sums else part for part in parts]
    rest = rise - sum(part.bytes for part in parts)
    sources = sums["sources"].bytes
    if rest < 0 and source_memory != "anonymous":
        # Pages of a map need not all be in memory, and the watermark says how many were at most.
        there = max(0, sources + rest)
        rest += sources - there
        sources = there
        parts[2] = parts[2]._replace(bytes=there)
    overstated = max(0, -rest)
    if overstated:
        # The ledger is surest of what is in the model; how long sources and copies stay is worked out.
        surest = sorted(parts, key=lambda part: SUREST.index(part.kind))
        fitted = {part.label: part for part in fit_parts(surest, rise)[0]}
        parts = [fitted.get(part.label, part._replace(bytes=0)) for part in parts]
        rest = 0
    explained = growth.file + (sources if source_memory != "anonymous" else 0)
    # What was read ahead is in no map, and the loader of today maps all files of a load, or none.
    maps = came is None or not came.in_background
    mapped = max(0, min(rest, files.peak - explained)) if maps else 0
    parts.append(Part("other-mapped", "mapped weights that were touched", mapped, files.memory))
    full = max(0, min(rest - mapped, most_unquantized(what, span.start_ns, span.end_ns)))
    parts.append(Part("unquantized", "full precision, on its way to be quantised", full, "anonymous"))
    rest -= full
    passing = max(0, rest - mapped) if _in_import(trace, span) else 0
    parts.append(Part("imports", "what an import needed for itself alone", passing, "both"))
    rest -= mapped + passing
    unrecorded = max(0, min(rest, _unrecorded(trace, load, what))) if load.status == "killed" else 0
    under_way = "reads and merges" if merges(trace) else "reads"
    parts.append(Part("unrecorded", f"{under_way} under way when it was killed", unrecorded, "anonymous"))
    rest -= unrecorded
    reserve = max(0, min(rest, heap_growth(trace, load_row)))
    parts.append(Part("reserve", "freed, and kept by malloc", reserve, "anonymous"))
    parts = [part for part in parts if part.bytes] + [Part("rest", "not explained", rest - reserve, "both")]
    return parts, overstated


def _unrecorded(trace: Trace, load: Span, what: HeldMemory) -> int:
    """Returns by how much anonymous memory grew after the last event of a load that was killed, in bytes.

    Reads are written down when they are done, and events up to 50 ms later.
    Outside of the weights nothing large is under way.
    """
    index = span_index(trace)
    rows = index.walk_thread([index.row_of[load.id]])
    open_ones = [row for row in rows if index.ends[row] >= load.end_ns and index.phases[row] in READING]
    if not open_ones:
        return 0
    done = (time for parcel in what.copies for time in parcel.appear if time <= load.end_ns)
    edges = (time for row in rows for time in (index.starts[row], index.ends[row]) if time < load.end_ns)
    last = max((*done, *edges), default=load.start_ns)
    readings = _readings(trace, load)
    # From the first reading that has the last event in it: an edge has one of its own.
    after = [reading.anonymous_bytes for reading in readings if last <= reading.time_ns <= load.end_ns]
    return max(after) - after[0] if after else 0


def _in_import(trace: Trace, span: Span) -> bool:
    """Returns whether a span is an import, or lies in one: it reads no weights, and its peak is its own."""
    index = span_index(trace)
    row: int | None = index.row_of[span.id]
    while row is not None:
        if index.phases[row] == "import":
            return True
        row = index.parents[row]
    return False


def _readings(trace: Trace, load: Span) -> list[Reading]:
    return next(
        (each.readings for each in process_memory(trace) if (each.rank, each.pid) == (load.rank, load.pid)),
        [],
    )


class _MappedGrowth(NamedTuple):
    """The greatest growth of mapped memory since the load's start, in bytes."""

    load: int
    peak: int
    """Inside the span that has the peak."""
    memory: str
    """``file``, or ``shared`` where the files are in a file system that lives in memory."""


def _mapped_growth(trace: Trace, load: Span, span: Span) -> _MappedGrowth:
    readings = _readings(trace, load)
    start = next((reading for reading in readings if reading.time_ns >= load.start_ns), None)
    shared_before = start.shared_bytes if start is not None else 0
    first = (load.rss_file_start_bytes or 0) + shared_before

    def highest(during: Span) -> int:
        taken = between(readings, during.start_ns, during.end_ns)
        return max((reading.file_bytes + reading.shared_bytes for reading in taken), default=first) - first

    taken = between(readings, load.start_ns, load.end_ns)
    shared = max((reading.shared_bytes for reading in taken), default=shared_before) - shared_before
    grown = highest(load)
    return _MappedGrowth(grown, highest(span), "shared" if shared > grown / 2 else "file")
