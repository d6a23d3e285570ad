"""Chrome's trace format, which Perfetto and chrome://tracing open: threads, reads, memory, findings.

What is on the track of a thread nests; what would cross something there, and requests, are asynchronous.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from hftrace._version import __version__
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.session import session_bounds
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import text
from hftrace.export import Wish
from hftrace.export.chrome_events import Track, arguments, line
from hftrace.export.chrome_places import FINDINGS, IMPORTS, READS, SESSION, SPANS, Places, Process
from hftrace.export.lanes import (
    ReadTracks,
    Slice,
    Tracks,
    import_tracks,
    pack,
    read_tracks,
    span_tracks,
    thread_title,
)
from hftrace.export.packing import packed
from hftrace.export.titles import titles
from hftrace.schema.model import Table
from hftrace.schema.trace import Trace

SPAN_FACTS = (
    *("id", "parent", "phase", "status", "function", "source", "attributes"),
    *("rss_anon_start_bytes", "rss_anon_bytes", "rss_file_start_bytes", "rss_file_bytes", "rss_peak_bytes"),
    *("device_allocated_bytes", "device_reserved_bytes", "device_peak_bytes", "storage_read_bytes"),
    *("cpu_user_ns", "cpu_system_ns", "minor_faults", "major_faults"),
)
"""Columns of a span that its arguments have."""
READ_FACTS = (
    *("provenance", "file", "offset", "stored_dtype", "dtype", "stored_bytes", "bytes", "shape", "device"),
    *("span", "placed_ns", "load"),
)
"""Those of a tensor."""
REQUEST_FACTS = ("host", "path", "status", "error", "bytes", "attempt", "wait_ns", "asked_by", "transport")
"""Those of a request."""
IMPORT_FACTS = (
    *("package", "self_ns", "made_of", "importer", "importer_line", "guard", "file_bytes", "compiled"),
    "status",
)
"""Those of an import."""
VERSIONS = ("python", "torch", "transformers", "accelerate", "safetensors", "huggingface_hub")
COUNTERS = (
    ("memory", {"anonymous": "rss_anon_bytes", "file-backed": "rss_file_bytes", "shmem": "rss_shmem_bytes"}),
    ("swap", {"bytes": "swap_bytes"}),
    ("control group", {"bytes": "cgroup_bytes"}),
    ("storage read", {"bytes": "storage_read_bytes"}),
)
"""Counters of a sample, and the columns of their series: those of one counter are disjoint, as viewers may
stack them."""
DEVICE_COUNTERS = (
    ("allocated", "device_allocated_bytes"),
    ("reserved", "device_reserved_bytes"),
    ("used by all", "device_used_bytes"),
)
"""Counters of each device. What is allocated is a part of what is reserved: they are not to be stacked."""
PIECE = 1 << 16
"""So many characters are collected before they are written."""


def write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    """Writes traces side by side, each from its own zero; compressed where the name ends in ``.gz``."""
    with packed(stream, wish.target) as file:
        _write(traces, file, wish)


def _write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    numbers = itertools.count(1)
    several = len(traces) > 1
    drawings = []
    about: dict[str, Any] = {}
    for name, trace in zip(titles(wish.paths, len(traces)), traces, strict=True):
        drawings.append(Drawing(trace, numbers, f"{name}: " if several else ""))
        about |= {name: about_trace(trace)} if several else about_trace(trace)
    write_events(stream, about, itertools.chain.from_iterable(each.events() for each in drawings))


def write_events(stream: BinaryIO, about: Mapping[str, Any], events: Iterable[str]) -> None:
    """Writes a whole file, as its events come.

    Args:
        stream: Where it goes.
        about: What stands beside the events.
        events: Each as its text.
    """
    facts = arguments({"written_by": f"hftrace {__version__}", **about})
    stream.write(f'{{"displayTimeUnit":"ms","otherData":{facts},"traceEvents":['.encode())
    held: list[str] = []
    size = 0
    separator = "\n"
    for event in events:
        held.append(event)
        size += len(event)
        if size > PIECE:
            stream.write((separator + ",\n".join(held)).encode())
            held, size, separator = [], 0, ",\n"
    if held:
        stream.write((separator + ",\n".join(held)).encode())
    stream.write(b"\n]}\n")


def origin_ns(trace: Trace) -> int:
    """Returns the time of a trace at which a viewer's clock stands at zero: none is before it."""
    times: list[int] = trace.samples.column("time_ns")
    return min(0, session_bounds(trace).start_ns, *times)


def about_trace(trace: Trace) -> dict[str, Any]:
    """Returns what is known of a run as a whole."""
    header, outcome = trace.header, trace.outcome
    tracks = [*span_tracks(trace), *import_tracks(trace)]
    error = outcome.get("error")
    argv = header.get("argv")
    return {
        "command": header.get("command"),
        "arguments": line(argv) if isinstance(argv, list) else None,
        "start_time": header.get("start_time"),
        "clock_base_ns": header.get("clock_base_ns"),
        "zero_ns": origin_ns(trace),
        "wall_ns": session_bounds(trace).wall_ns,
        "request": dict(trace.request),
        "versions": {name: trace.environment.get(name) for name in VERSIONS},
        "generation": trace.environment.get("generation"),
        "status": outcome.get("status"),
        "signal": outcome.get("signal"),
        "error": error.get("message") if isinstance(error, dict) else None,
        "lost": header.get("lost"),
        "cut_slices": sum(each.cut for each in tracks),
        "cut_slices_ns": sum(each.cut_ns for each in tracks),
    }


class Drawing:
    """The events of one trace.

    Args:
        trace: The trace.
        numbers: Where those of processes and threads come from.
        prefix: What names of processes begin with.
    """

    def __init__(self, trace: Trace, numbers: Iterator[int], prefix: str) -> None:
        self._trace = trace
        self._index = span_index(trace)
        self._places = Places(trace, numbers, prefix, origin_ns(trace))
        self._async_tracks = itertools.count(1)

    def events(self) -> Iterator[str]:
        """Yields all events of the trace."""
        yield from self._session()
        yield from self._findings()
        for order, tracks in enumerate(span_tracks(self._trace)):
            yield from self._spans(tracks, order)
        for order, tracks in enumerate(import_tracks(self._trace)):
            yield from self._imports(tracks, order)
        for order, reads in enumerate(read_tracks(self._trace)):
            yield from self._reads(reads, order)
        yield from self._requests()
        yield from self._samples()

    def _session(self) -> Iterator[str]:
        """Yields one slice for all of it: not every reader shows what stands beside the events."""
        bounds = session_bounds(self._trace)
        track = self._places.thread(self._places.main, SESSION, "session")
        yield from self._places.naming()
        command = text(self._trace.header.get("command"))
        name = f"hftrace {command}" if command else "session"
        values = arguments(about_trace(self._trace))
        yield track.complete(bounds.start_ns, bounds.end_ns, "session", name, values)

    def _findings(self) -> Iterator[str]:
        """Yields each finding where the first span begins that it is about."""
        found = findings(self._trace)
        if not found:
            return
        track = self._places.thread(self._places.main, FINDINGS, "findings")
        yield from self._places.naming()
        for finding in found:
            rows = [self._index.row_of.get(span) for span in (*finding.where.spans, finding.load) if span]
            times = [self._index.starts[row] for row in rows if row is not None]
            time = times[0] if times else session_bounds(self._trace).start_ns
            values = finding.to_json()
            del values["title"]
            yield track.instant(time, "finding", f"{finding.rule} {finding.title}", arguments(values))

    def _spans(self, tracks: Tracks, order: int) -> Iterator[str]:
        track = self._places.lane(tracks.lane, SPANS, "", order)
        yield from self._nested(track, tracks, self._trace.spans, SPAN_FACTS, "overlapping")

    def _imports(self, tracks: Tracks, order: int) -> Iterator[str]:
        track = self._places.lane(tracks.lane, IMPORTS, "imports by ", order)
        yield from self._nested(track, tracks, self._trace.imports, IMPORT_FACTS, "overlapping import")

    def _nested(
        self, track: Track, tracks: Tracks, table: Table[Any], facts: Sequence[str], crossing: str
    ) -> Iterator[str]:
        """Yields the slices of a thread, and asynchronous ones for what would cross others there."""
        yield from self._places.naming()
        names: list[str | None] = table.column("name")
        phases: list[str] = table.column("phase") if "phase" in table.columns else ["import"] * len(table)
        described = _describer(table, facts)
        for row, start, end, _ in tracks.own:
            yield track.complete(start, end, phases[row], names[row] or "?", described(row))
        for slices in tracks.crossing:
            number = next(self._async_tracks)
            still_open: list[Slice] = []
            for each in (*slices, None):
                while still_open and (each is None or still_open[-1].level >= each.level):
                    last = still_open.pop()
                    yield track.end(last.end_ns, crossing, names[last.row] or "?", number)
                if each is not None:
                    still_open.append(each)
                    name = names[each.row] or "?"
                    yield track.begin(each.start_ns, crossing, name, number, described(each.row))

    def _reads(self, reads: ReadTracks, order: int) -> Iterator[str]:
        process = self._places.of_reader(reads.rank, reads.pid, reads.thread)
        title = f"reads by {thread_title(self._trace, reads.thread)}"
        track = self._places.thread(process, READS, title, order)
        yield from self._places.naming()
        tensors = self._trace.tensors
        names, keys = tensors.column("name"), tensors.column("keys")
        described = _describer(tensors, READ_FACTS)

        def named(row: int) -> str:
            return names[row] or next(iter(keys[row]), "?")

        for start, end, row in reads.own:
            yield track.complete(start, end, "read", named(row), described(row))
        for timed in reads.crossing:
            number = next(self._async_tracks)
            for start, end, row in timed:
                yield track.begin(start, "read", named(row), number, described(row))
                yield track.end(end, "read", named(row), number)

    def _requests(self) -> Iterator[str]:
        requests = self._trace.requests
        column = requests.column
        described = _describer(requests, REQUEST_FACTS)
        timed: dict[Process, list[tuple[int, int, int]]] = {}
        for row, (rank, span, start, duration) in enumerate(
            zip(
                *(column(name) for name in ("rank", "asked_by", "time_ns", "duration_ns")),
                strict=True,
            )
        ):
            inside = self._index.row_of.get(span)
            pid = None if inside is None else self._index.lanes[inside].pid
            process = self._places.of_reader(rank, pid, column("thread")[row])
            timed.setdefault(process, []).append((start, start + (duration or 0), row))
        for process, those in timed.items():
            track = self._places.process(process)
            yield from self._places.naming()
            for lane in pack(those):
                number = next(self._async_tracks)
                for start, end, row in lane:
                    name = f"{column('method')[row]} {column('file')[row] or column('path')[row]}"
                    yield track.begin(start, "request", name, number, described(row))
                    yield track.end(end, "request", name, number)

    def _samples(self) -> Iterator[str]:
        column = self._trace.samples.column
        by_name = [
            (name, {part: column(source) for part, source in parts.items()}) for name, parts in COUNTERS
        ]
        by_device = [(name, column(source)) for name, source in DEVICE_COUNTERS]
        for row, (time, pid) in enumerate(zip(column("time_ns"), column("pid"), strict=True)):
            track = self._places.process(self._places.of_sample(pid))
            yield from self._places.naming()
            for name, parts in by_name:
                values = {part: cells[row] for part, cells in parts.items() if cells[row] is not None}
                if values:
                    yield track.counter(time, name, values)
            for name, cells in by_device:
                for device, size in (cells[row] or {}).items():
                    yield track.counter(time, f"{device} {name}", {"bytes": size})


def _describer(table: Table[Any], names: Sequence[str]) -> Any:
    """Returns what gives the arguments of a row: its facts by the names of their columns."""
    columns = [table.column(name) for name in names]
    return lambda row: arguments(dict(zip(names, [column[row] for column in columns], strict=True)))
