"""The last reading of a process's memory before it ended, and of what was around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hftrace.schema.trace import Trace

PRESSURE_WINDOW_NS = 1_000_000_000


@dataclass(frozen=True)
class LastMemory:
    """Memory at the last reading, in bytes; None where it is not known."""

    anonymous: int | None = None
    total: int | None = None
    group: int | None = None
    """Of the control group."""
    available: int | None = None
    """Of the machine."""
    stall_ns: int | None = None
    """How much the stall time grew in the last second."""


def limit_reached(trace: Trace) -> Mapping[str, Any] | None:
    """Returns what the sampler noted when it stopped the load at ``--memory-limit``; None if it did not."""
    sampling = trace.header.get("sampling")
    reached = sampling.get("limit") if isinstance(sampling, Mapping) else None
    return reached if isinstance(reached, Mapping) else None


def last_memory(trace: Trace) -> LastMemory:
    """Returns the last reading of all: of the samples, else of the edges of the spans."""
    samples = trace.samples
    names = (
        "time_ns",
        "rss_anon_bytes",
        "rss_file_bytes",
        "rss_shmem_bytes",
        "cgroup_bytes",
        "available_bytes",
        "memory_stall_ns",
    )
    rows = [row for row in zip(*(samples.column(name) for name in names), strict=True) if row[1] is not None]
    if rows:
        time, anonymous, file, shared, group, available, stall = rows[-1]
        before = next((row[6] for row in reversed(rows) if row[0] <= time - PRESSURE_WINDOW_NS), rows[0][6])
        grown = stall - before if stall is not None and before is not None else None
        return LastMemory(anonymous, anonymous + (file or 0) + (shared or 0), group, available, grown)
    reached = limit_reached(trace)
    if reached is not None and isinstance(reached.get("rss_anon_bytes"), int):
        return LastMemory(reached["rss_anon_bytes"])
    edges = [
        (time, anonymous, file)
        for span in trace.spans
        for time, anonymous, file in (
            (span.start_ns, span.rss_anon_start_bytes, span.rss_file_start_bytes),
            (span.end_ns, span.rss_anon_bytes, span.rss_file_bytes),
        )
        if anonymous is not None
    ]
    if not edges:
        return LastMemory()
    _, anonymous, file = max(edges, key=lambda edge: edge[0])
    return LastMemory(anonymous, anonymous + (file or 0) if anonymous is not None else None)
