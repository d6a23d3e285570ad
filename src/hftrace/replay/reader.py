"""Reads the journal of one process into spans, events and facts, as they were written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hftrace.errors import TraceError
from hftrace.schema import events, journal

EDGE_ITEMS = 6
"""Items of an edge, see :data:`hftrace.schema.journal.BEGIN`."""


@dataclass
class OpenedSpan:
    """A span while it is put together."""

    id: int
    parent: int | None
    phase: str
    name: str
    hook: int | None
    thread: int
    start: int
    edge: list[Any]
    attributes: dict[str, Any]
    end: int | None = None
    end_edge: list[Any] | None = None
    status: str | None = None
    peak: int | None = None
    device_peak: dict[str, int] = field(default_factory=dict)


class Hook(NamedTuple):
    """A hook point that was installed."""

    function: str
    source: str
    lead: str
    """See ``lead`` of :class:`hftrace.record.hooks.points.HookPoint`; empty for most."""
    trail: str


@dataclass
class Process:
    """What one process wrote into its journal."""

    header: dict[str, Any]
    spans: dict[int, OpenedSpan] = field(default_factory=dict)
    hooks: dict[int, Hook] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)
    events: dict[str, list[tuple[int, list[Any]]]] = field(default_factory=lambda: defaultdict(list))
    lines: dict[str, list[list[Any]]] = field(default_factory=lambda: defaultdict(list))
    facts: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    errors: list[list[Any]] = field(default_factory=list)
    lost: int = 0
    last_time: int = 0
    stopped: bool = False

    @property
    def pid(self) -> int:
        """Its number, as its own name space counts."""
        return int(self.header["pid"])

    @property
    def rank(self) -> int:
        """Its rank, 0 where there is only one process."""
        return int(self.header.get("rank", 0))


def total_of(edge: list[Any] | None) -> int | None:
    """Returns the resident bytes at an edge, all kinds together."""
    if edge is None or edge[0] is None:
        return None
    return int(edge[0]) + int(edge[1] or 0) + int(edge[2] or 0)


def storage_read(start: list[Any], end: list[Any]) -> int | None:
    """Returns the bytes that came from storage between two edges; older journals do not say it."""
    if len(start) < EDGE_ITEMS or len(end) < EDGE_ITEMS or start[5] is None or end[5] is None:
        return None
    return max(0, int(end[5]) - int(start[5]))


def greater(left: int | None, right: int | None) -> int | None:
    """Returns the greater of two figures, either of which may be unknown."""
    return right if left is None else left if right is None else max(left, right)


def read_process(path: Path) -> Process | None:
    """Reads one journal, to its last whole line.

    Args:
        path: The journal.

    Returns:
        The process, or None where not even the header was written.

    Raises:
        TraceError: The journal is of a newer hftrace, or is none.
    """
    process: Process | None = None
    open_spans: dict[int, OpenedSpan] = {}
    for line in journal.lines(path):
        kind = line[0]
        if kind == journal.HEADER:
            if line[1].get("schema") != journal.SCHEMA or int(line[1].get("version", 0)) > journal.VERSION:
                raise TraceError(f"{path} is not a journal that this hftrace can read: upgrade hftrace")
            process = Process(line[1])
            process.last_time = int(line[1]["clock_base_ns"])
            continue
        if process is None:
            continue
        if kind == journal.BEGIN:
            span = OpenedSpan(
                line[1], line[2], line[3], line[4], line[5], line[6], line[7], line[8], dict(line[9])
            )
            _mark(open_spans.values(), span.edge)
            span.peak = total_of(span.edge)
            process.spans[span.id] = span
            open_spans[span.id] = span
            process.last_time = max(process.last_time, span.start)
        elif kind == journal.END:
            ended = process.spans.get(line[1])
            if ended is None:
                continue
            _mark(open_spans.values(), line[3])
            open_spans.pop(ended.id, None)
            ended.end, ended.end_edge, ended.status = line[2], line[3], line[4]
            notes = {key: value for key, value in line[5].items() if not key.startswith("hftrace_")}
            ended.attributes.update(notes)
            process.last_time = max(process.last_time, ended.end or 0)
        elif kind in (journal.SLICES, journal.TENSORS):
            process.lines[kind].append([kind, line[1], events.decode(line)])
        elif kind in events.FIELDS:
            items = events.decode(line)
            process.events[kind].append((line[1], items))
            if items:
                process.last_time = max(process.last_time, int(items[-1]))
        elif kind == journal.HOOK:
            process.hooks[line[1]] = Hook(line[3], line[4], *(line[6:8] if len(line) > 7 else ("", "")))
        elif kind == journal.THREAD:
            process.threads[line[1]] = line[2]
        elif kind == journal.FACTS:
            process.facts[line[1]].append(line[2])
        elif kind == journal.ERROR:
            process.errors.append(line[1:])
        elif kind == journal.LOST:
            process.lost += int(line[1])
        elif kind == journal.STOP:
            process.stopped = True
            process.last_time = max(process.last_time, line[1])
        else:
            process.lines[kind].append(line)
    return process


def _mark(spans: Iterable[OpenedSpan], edge: list[Any]) -> None:
    """Folds a watermark into all spans open since the last one: a parent's peak holds its child's."""
    mark, devices = edge[3], edge[4]
    if mark is None:
        mark = total_of(edge)
    for span in spans:
        span.peak = greater(span.peak, mark)
        for name, values in (devices or {}).items():
            span.device_peak[name] = max(span.device_peak.get(name, 0), values[2])
