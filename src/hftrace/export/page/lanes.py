"""The timeline as the script draws it: spans by thread, tensors that were read, memory, on one axis."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import tensor_batches
from hftrace.analysis.memory.facts import peak_time_ns
from hftrace.analysis.memory.usage import ProcessMemory, process_memory
from hftrace.analysis.time.process_names import name_of_process
from hftrace.analysis.time.spans import Lane, span_index
from hftrace.analysis.time.timeline import timeline
from hftrace.analysis.values import integer
from hftrace.export.page.data import Words, deltas, number, numbers
from hftrace.export.page.palette import family
from hftrace.render.text import phase_letter
from hftrace.render.views.memory import remarks
from hftrace.render.views.tensors import name_of
from hftrace.render.views.timeline import imports_before
from hftrace.schema.trace import Trace

MAX_ROWS = 12
"""Levels of calls that a lane shows: what is deeper stands in the call tree."""
MAX_READINGS = 20_000
"""Of one process that are drawn; of more the highest of each stretch stays."""
SPAN_FIELDS = ("id", "name", "phase", "start", "end", "lane", "depth", "status", "source", "peak")
"""Columns of the spans."""


def timeline_data(
    trace: Trace, name: str = "", *, has_ledger: bool = False, shift: int = 0
) -> dict[str, Any]:
    """Returns lanes, spans, reads and memory of a trace; times are ns from the start of the session.

    Args:
        trace: The trace.
        name: What it goes by among others; empty where it is alone.
        has_ledger: Whether the page has the trace's tensor ledger, so that reads need no names of their own.
        shift: How far its start lies behind that of the page's time, in ns.
    """
    made = timeline(trace)
    zero = made.start_ns - shift
    lanes = _lanes(trace)
    at = {lane["key"]: position for position, lane in enumerate(lanes)}
    spans = _spans(trace, zero, at)
    return {
        "name": name,
        "zero_ns": zero,
        "shift": shift,
        "end": max(1, made.end_ns - zero),
        # What a person looks at first: as in a terminal, not the imports before the load.
        "first": imports_before(trace, made) + shift,
        "loads": [[start - zero, end - zero] for start, end in _loads(trace)],
        "lanes": [{key: value for key, value in lane.items() if key != "key"} for lane in lanes],
        "spans": spans,
        "reads": _reads(trace, zero, at, has_ledger),
        "waits": [
            [number(start - zero), number(end - zero)]
            for start, end in made.waits
            if number(start) is not None
        ],
        "requests": _requests(trace, zero),
        "memory": [_memory(trace, process, zero) for process in process_memory(trace)],
    }


def _loads(trace: Trace) -> list[tuple[int, int]]:
    """Returns start and end of each load."""
    index = span_index(trace)
    return [
        index.bounds(row)
        for row in index.load_rows
        if all(number(each) is not None for each in index.bounds(row))
    ]


def _lanes(trace: Trace) -> list[dict[str, Any]]:
    """Returns a lane for each thread, in the order of the timeline; readers stand behind the others."""
    made = timeline(trace)
    lanes: list[dict[str, Any]] = []
    seen: set[tuple[int, int]] = set()
    for each in made.spans:
        seen.add((each.lane.rank, each.lane.thread))
        lanes.append({"key": each.lane, "name": each.name, "rank": each.lane.rank, "reads": False})
    for reader in made.reads:
        if (reader.rank, reader.thread) not in seen:
            key = (reader.rank, reader.thread)
            lanes.append({"key": key, "name": reader.name, "rank": reader.rank, "reads": True})
    return lanes


def _spans(trace: Trace, zero: int, at: dict[Any, int]) -> dict[str, Any]:
    """Returns the spans in columns, parents first; each lies inside of its parent, as in the call tree."""
    index, table = span_index(trace), trace.spans
    functions, names = table.column("function"), table.column("name")
    sources, statuses = table.column("source"), table.column("status")
    peaks = table.column("rss_peak_bytes")
    words = Words()
    columns: dict[str, list[Any]] = {field: [] for field in SPAN_FIELDS}
    depths: dict[int, int] = {}
    phases: dict[str, int] = {}
    for row in index.walk(index.roots):
        lane, parent = index.lanes[row], index.parents[row]
        inside = parent is not None and index.lanes[parent] == lane
        depth = depths[row] = depths[parent] + 1 if inside and parent is not None else 0
        start, end = index.bounds(row)
        if number(start) is None or number(end) is None or lane not in at:
            continue
        columns["id"].append(number(index.ids[row]))
        columns["name"].append(words.place(_name(functions[row], names[row], index.phases[row])))
        columns["phase"].append(phases.setdefault(index.phases[row], len(phases)))
        columns["start"].append(start - zero)
        columns["end"].append(end - zero)
        columns["lane"].append(at[lane])
        columns["depth"].append(min(depth, MAX_ROWS))
        columns["status"].append(0 if statuses[row] == "ok" else 1)
        columns["source"].append(words.place(sources[row]))
        columns["peak"].append(number(peaks[row]))
    return {
        **columns,
        "words": words.texts,
        "phases": [[phase, phase_letter(phase), family(phase)] for phase in phases],
        "max_rows": MAX_ROWS,
    }


def _name(function: str | None, name: str | None, phase: str) -> str:
    """Returns what a box of the timeline says: the function as a person writes it, else the span's name."""
    if phase == "shard" or not function:
        return name or phase
    short = function.rpartition(".")[2] or function
    if name and phase == "load" and name.isidentifier() and name != short:
        return f"{name}.{short}"
    return function


def _reads(trace: Trace, zero: int, at: dict[Any, int], has_ledger: bool) -> dict[str, Any]:
    """Returns when each tensor was read, by lane and in order of time."""
    loaded = as_loaded(trace)
    column = loaded.tensors.column
    starts, ends, sizes = column("read_start_ns"), column("read_end_ns"), column("bytes")
    stored, names, keys = column("stored_bytes"), column("name"), column("keys")
    threads: dict[tuple[int, int], int] = {}
    for key, position in at.items():
        # A thread goes by its process as well where it has spans; the first one is the loading process.
        threads.setdefault((key.rank, key.thread) if isinstance(key, Lane) else key, position)
    found: list[tuple[int, int, int, int]] = []
    for batch in tensor_batches(loaded):
        lane = threads.get((batch.rank, batch.thread)) if batch.thread is not None else None
        if lane is None or not batch.read:
            continue
        for row in batch.rows:
            start, end = starts[row], ends[row]
            if end is None or number(start) is None or number(end) is None or end < start:
                continue
            found.append((lane, start - zero, end - start, row))
    found.sort(key=itemgetter(0, 1))
    rows = [each[3] for each in found]
    said: dict[str, Any] = {"row": deltas(rows)}
    if not has_ledger or loaded is not trace:
        words = Words()
        size = [stored[row] if stored[row] is not None else sizes[row] for row in rows]
        said = {
            "bytes": numbers(size),
            "name": words.column(name_of(names[row], keys[row]) for row in rows),
            "words": words.texts,
        }
    return {
        "lane": [each[0] for each in found],
        "start": deltas(each[1] for each in found),
        "took": [each[2] for each in found],
        **said,
    }


def _requests(trace: Trace, zero: int) -> list[list[Any]]:
    """Returns start, time, name and failure of each HTTP request."""
    return [
        [number(request.time_ns - zero), number(request.duration_ns or 0), request.file or "", request.failed]
        for request in trace.requests
        if number(request.time_ns) is not None
    ]


# -- memory --------------------------------------------------------------------------------------------


def _memory(trace: Trace, process: ProcessMemory, zero: int) -> dict[str, Any]:
    """Returns the readings of a process, its exact peak and its limit."""
    readings = _thinned(process.readings, lambda each: each.total_bytes)
    peak, limit = process.peak, integer(trace.outcome.get("limit_bytes"))
    devices = {}
    for device, points in process.devices.items():
        kept = _thinned(points, lambda each: each.allocated_bytes)
        devices[device] = {
            "time": [number(each.time_ns - zero) for each in kept],
            "allocated": [number(each.allocated_bytes) or 0 for each in kept],
            "reserved": [number(each.reserved_bytes) or 0 for each in kept],
            "peak": number(process.device_peaks.get(device)),
        }
    return {
        "name": name_of_process(trace, process.rank, process.pid) or "",
        "time": [number(each.time_ns - zero) for each in readings],
        "anonymous": [number(each.anonymous_bytes) or 0 for each in readings],
        "file": [number(each.file_bytes) or 0 for each in readings],
        "shared": [number(each.shared_bytes) or 0 for each in readings],
        "peak": None
        if peak is None
        else {
            "bytes": number(peak.bytes),
            "time": None if (when := peak_time_ns(trace, process, peak)) is None else number(when - zero),
            "exact": peak.exact,
            "between": peak.between_readings,
        },
        "limit": number(limit) if limit is not None and limit > 0 else None,
        "devices": devices,
        "remarks": remarks(trace, process),
    }


def _thinned(points: list[Any], size: Any) -> list[Any]:
    """Returns points; of too many the highest of each stretch of them."""
    if len(points) <= MAX_READINGS:
        return points
    step = -(-len(points) // MAX_READINGS)
    return [max(points[at : at + step], key=size) for at in range(0, len(points), step)]
