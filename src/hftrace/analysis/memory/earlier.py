"""What a process still held when a load began: its memory since the session's start, and earlier models.

Only what was seen is said: a model is held where its load's trace has it alive when the next one began.
A model that nobody refers to any more is alive, and takes its memory, until Python has collected it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hftrace.analysis.memory.devices import device_sizes
from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadName, LoadTrace, load_names
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace


class HeldModel(NamedTuple):
    """The model of an earlier load that was still there."""

    load: LoadName
    bytes: dict[str, int] | None
    """Of its tensors in the ledger, by device; of one that stays behind a hook, by where it stays. None where
    they are in the ledger of a later load, which made them its own."""


class Earlier(NamedTuple):
    """What a process held when a load began; None for what nobody saw."""

    anonymous_bytes: int | None
    file_bytes: int | None
    since_start_anonymous_bytes: int | None
    """How much more anonymous memory that was than when the session began; may be negative."""
    since_start_file_bytes: int | None
    device_bytes: dict[str, int] | None
    """What torch's allocator had given out on each device."""
    models: list[HeldModel] | None
    """Of the loads of this session; models of before it are not known."""


def held_earlier(trace: Trace, row: int) -> Earlier:
    """Returns what a process held when a load began.

    Args:
        trace: The trace, of a session or of the load.
        row: Row of the load's span.
    """
    session = trace.session if isinstance(trace, LoadTrace) else trace
    span = trace.spans[row]
    start = _at_start(session).get((span.rank, span.pid), {})
    alive = span.attributes.get("alive")
    models = None
    if isinstance(alive, list):
        names = {name.span: name for name in load_names(session)}
        sizes = _sizes(session)
        models = [HeldModel(names[load], sizes.get(load)) for load in map(natural, alive) if load in names]
    return Earlier(
        span.rss_anon_start_bytes,
        span.rss_file_start_bytes,
        _above(span.rss_anon_start_bytes, start.get("rss_anon_bytes")),
        _above(span.rss_file_start_bytes, start.get("rss_file_bytes")),
        device_sizes(span.attributes.get("device_allocated_start_bytes")) or None,
        models,
    )


def first_held(trace: Trace) -> Earlier | None:
    """Returns what was held when the first load of a trace began; None where there is no load."""
    rows = span_index(trace).load_rows
    return held_earlier(trace, rows[0]) if rows else None


def earlier_facts(earlier: Earlier) -> dict[str, Any]:
    """Returns what was held as plain JSON values."""
    since = {
        "anonymous_bytes": earlier.since_start_anonymous_bytes,
        "file_bytes": earlier.since_start_file_bytes,
    }
    return {
        "anonymous_bytes": earlier.anonymous_bytes,
        "file_bytes": earlier.file_bytes,
        "since_start": since if any(size is not None for size in since.values()) else None,
        "device_bytes": earlier.device_bytes,
        "models": None
        if earlier.models is None
        else [
            {
                "load": model.load.number,
                "span": model.load.span,
                "class": model.load.class_name,
                "bytes": model.bytes,
            }
            for model in earlier.models
        ],
    }


def _above(size: int | None, start: object) -> int | None:
    known = natural(start)
    return None if size is None or known is None else size - known


@once
def _at_start(trace: Trace) -> dict[tuple[int, int], Mapping[str, Any]]:
    """Returns what each process held when its recording began, by rank and pid."""
    found: dict[tuple[int, int], Mapping[str, Any]] = {}
    processes = trace.header.get("processes")
    for process in processes if isinstance(processes, list) else []:
        if isinstance(process, Mapping) and isinstance(process.get("at_start"), Mapping):
            rank, pid = natural(process.get("rank")), natural(process.get("pid"))
            if rank is not None and pid is not None:
                found[rank, pid] = process["at_start"]
    return found


@once
def _sizes(trace: Trace) -> dict[int, dict[str, int]]:
    """Returns the bytes of each load's tensors by device, by the load's span."""
    found: dict[int, dict[str, int]] = {}
    columns = ("load", "kind", "provenance", "device", "offload", "bytes")
    for load, kind, provenance, device, offload, size in zip(
        *(trace.tensors.column(name) for name in columns), strict=True
    ):
        if load is None or kind == "unused" or provenance in (None, "tied"):
            continue
        sizes = found.setdefault(load, {})
        place = offload or device
        if place is not None and place != "meta" and size:
            sizes[place] = sizes.get(place, 0) + size
    return found
