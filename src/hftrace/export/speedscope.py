"""Speedscope's format: a profile of time for each thread, and profiles of bytes for each rank.

Its left-heavy view puts what is alike together, so that a profile of bytes shows where they are.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from hftrace._version import __version__
from hftrace.analysis.time.process_names import name_of_process
from hftrace.analysis.time.session import session_bounds
from hftrace.export import Wish
from hftrace.export.chrome_events import words
from hftrace.export.lanes import Slice, import_tracks, read_tracks, span_tracks, thread_title
from hftrace.export.packing import packed
from hftrace.export.speedscope_frames import Frame, Frames, frame_at, held_bytes, stored_bytes
from hftrace.export.titles import titles
from hftrace.schema.trace import Trace

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
"""What the format is known by."""


def write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    """Writes the profiles of traces; compressed where the name ends in ``.gz``."""
    with packed(stream, wish.target) as file:
        _write(traces, file, wish)


def _write(traces: Sequence[Trace], stream: BinaryIO, wish: Wish) -> None:
    frames = Frames()
    names = titles(wish.paths, len(traces))
    about = {"$schema": SCHEMA, "exporter": f"hftrace {__version__}", "name": words(", ".join(names))}
    stream.write(f'{_encode(about)[:-1]},"profiles":['.encode())
    separator = "\n"
    for name, trace in zip(names, traces, strict=True):
        for profile in itertools.chain(_times(trace, frames), _sizes(trace, frames)):
            profile["name"] = words(f"{name}: {profile['name']}" if len(traces) > 1 else profile["name"])
            stream.write((separator + _encode(profile)).encode())
            separator = ",\n"
    # Only now are all frames known.
    stream.write(b'\n],"shared":{"frames":[')
    stream.write(",\n".join(_encode(frame.to_json()) for frame in frames).encode())
    stream.write(b"]}}\n")


def _encode(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _times(trace: Trace, frames: Frames) -> Iterator[dict[str, Any]]:
    """Yields the profiles of time: what threads did, what they imported, and what they read."""
    spans, tensors = trace.spans.column, trace.tensors.column
    places = zip(spans("name"), spans("source"), strict=True)
    of_spans = [frames[frame_at(name, source)] for name, source in places]
    for tracks in span_tracks(trace):
        rank, pid, thread = tracks.lane
        yield from _on_tracks(trace, "", (rank, pid, thread), of_spans, (tracks.own, *tracks.crossing))
    of_imports = [frames[Frame(name or "?")] for name in trace.imports.column("name")]
    for tracks in import_tracks(trace):
        rank, pid, thread = tracks.lane
        both = (tracks.own, *tracks.crossing)
        yield from _on_tracks(trace, "imports by ", (rank, pid, thread), of_imports, both)
    names = zip(tensors("name"), tensors("keys"), strict=True)
    of_reads = [frames[Frame(name or next(iter(keys), "?"))] for name, keys in names]
    for reads in read_tracks(trace):
        flat = (
            [Slice(row, start, end, 0) for start, end, row in timed] for timed in (reads.own, *reads.crossing)
        )
        yield from _on_tracks(trace, "reads by ", (reads.rank, reads.pid, reads.thread), of_reads, flat)


def _on_tracks(
    trace: Trace,
    what: str,
    where: tuple[int, int | None, int | None],
    numbers: Sequence[int],
    tracks: Iterable[Sequence[Slice]],
) -> Iterator[dict[str, Any]]:
    """Yields the profile of a thread, and further ones for what would cross something there.

    Args:
        trace: The trace.
        what: What the name begins with.
        where: Rank, process and thread; the process is None where only the rank is known.
        numbers: The frame of each row.
        tracks: The slices of each.
    """
    rank, pid, thread = where
    process = name_of_process(trace, rank, pid)
    bounds = session_bounds(trace)
    for number, slices in enumerate(tracks):
        events = list(_events(slices, numbers))
        times = [event["at"] for event in (*events[:1], *events[-1:])]
        further = f", overlapping {number}" if number else ""
        yield {
            "type": "evented",
            "name": f"{process + ', ' if process else ''}{what}{thread_title(trace, thread)}{further}",
            "unit": "nanoseconds",
            "startValue": min(bounds.start_ns, *times),
            "endValue": max(bounds.end_ns, *times),
            "events": events,
        }


def _events(slices: Iterable[Slice], numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yields where frames open and close, in order of time."""
    still_open: list[Slice] = []
    for each in (*slices, None):
        while still_open and (each is None or still_open[-1].level >= each.level):
            last = still_open.pop()
            yield {"type": "C", "frame": numbers[last.row], "at": last.end_ns}
        if each is not None:
            still_open.append(each)
            yield {"type": "O", "frame": numbers[each.row], "at": each.start_ns}


def _sizes(trace: Trace, frames: Frames) -> Iterator[dict[str, Any]]:
    """Yields the profiles of bytes of each rank: in the files, and in the model."""
    ranks = sorted(set(trace.tensors.column("rank")))
    sizes: Mapping[str, Any] = {"bytes in the files": stored_bytes, "bytes in the model": held_bytes}
    for rank in ranks:
        for what, stacks in sizes.items():
            found = list(stacks(trace, rank, frames))
            if found:
                yield {
                    "type": "sampled",
                    "name": f"rank {rank}, {what}" if len(ranks) > 1 else what,
                    "unit": "bytes",
                    "startValue": 0,
                    "endValue": sum(size for _, size in found),
                    "samples": [stack for stack, _ in found],
                    "weights": [size for _, size in found],
                }
