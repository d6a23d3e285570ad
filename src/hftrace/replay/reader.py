"""Reads the journal of one process into spans, events and facts, as they were written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hftrace.errors import TraceError
from hftrace.replay import stopped
from hftrace.replay.events import Event, decode
from hftrace.replay.restored import restore
from hftrace.replay.salvage import earliest_of, header_of, is_whole, place_orphans
from hftrace.schema import codec, journal, lines
from hftrace.schema.checks import MAX_AMOUNT
from hftrace.schema.lines import Allocator, Edge

Kind = TypeVar("Kind")
Value = TypeVar("Value")


@dataclass(slots=True)
class OpenedSpan:
    """A span while it is put together."""

    id: int
    parent: int | None
    phase: str
    name: str
    hook: int | None
    thread: int
    start: int
    edge: Edge
    attributes: dict[str, Any]
    end: int | None = None
    end_edge: Edge | None = None
    status: str | None = None
    peak: int | None = None
    device_peak: dict[str, int] = field(default_factory=dict)


class Shared:
    """Gives equal words, and equal edges, as one object: 500 loads have 30,000 spans of 60 names."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def one(self, value: Value) -> Value:
        """Returns the value, or an equal one that there was before."""
        if type(value) is not str and type(value) is not Edge:
            return value
        try:
            known: Value = self._known.setdefault(value, value)
        except TypeError:  # an edge of a damaged journal, with a list in it
            return value
        return known


@dataclass
class Process:
    """What one process wrote into its journal."""

    header: dict[str, Any]
    spans: dict[int, OpenedSpan] = field(default_factory=dict)
    hooks: dict[int, lines.Hook] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)
    facts: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    errors: list[lines.Error] = field(default_factory=list)
    lost: int = 0
    damage: journal.Damage = field(default_factory=journal.Damage)
    """The lines of its journal that were left out, because they are damaged."""
    last_time: int = 0
    first_time: int = MAX_AMOUNT
    """The earliest time that anything was done."""
    stopped: bool = False
    journal_stopped: str | None = None
    """Why its journal could not be written to its end."""
    recorded_until: int | None = None
    """The last time in a journal that stopped: what came after it is not in it."""
    unrecorded_loads: dict[str, int] = field(default_factory=dict)
    """By status: outermost loads that began, and ended, when the journal had stopped."""
    orphans: dict[int, int | None] = field(default_factory=dict)
    """By span whose parent had not begun when it did: what was open around it on its thread."""
    restored: bool = False
    """Whether paths have their secrets again, which the trace may not have."""
    merged: dict[int, int] = field(default_factory=dict)
    """By span of an import that has become a part of another one: that one."""
    device_marks: dict[str, int] = field(default_factory=dict)
    """The allocators' peaks at the last edge, where they are not set back at each."""
    used_devices: bool = False
    """Whether a device's allocator held anything at an edge; known once the tables are made."""
    shared: Shared = field(default_factory=Shared)
    _events: dict[type, list[Any]] = field(default_factory=lambda: defaultdict(list))
    _lines: dict[type, list[Any]] = field(default_factory=lambda: defaultdict(list))

    @property
    def pid(self) -> int:
        """Its number, as its own name space counts."""
        return int(self.header["pid"])

    @property
    def rank(self) -> int:
        """Its rank, 0 where there is only one process."""
        known = self.facts.get("process")
        return int(known[-1]["rank"] if known else self.header.get("rank", 0))

    @property
    def ranks(self) -> int:
        """How many ranks its job has; 1 where it is a process of its own, or did not live to say."""
        known = self.facts.get("process")
        return int(known[-1]["ranks"]) if known else 1

    def wall_ns(self, time_ns: int) -> int | None:
        """Returns what the wall clock said when the process's own clock said this; None if unknown."""
        wall = self.header.get("wall_clock_ns")
        return int(wall) - int(self.header["clock_base_ns"]) + time_ns if isinstance(wall, int) else None

    def events_of(self, kind: type[Kind]) -> list[Kind]:
        """Returns the events of one kind, in the order of the journal."""
        return self._events.get(kind, [])

    def lines_of(self, kind: type[Kind]) -> list[Kind]:
        """Returns the lines of one kind that were kept as they are, in the order of the journal."""
        return self._lines.get(kind, [])

    def forget(self) -> None:
        """Lets go of all that stands in the tables of the trace by now."""
        self.used_devices = any(span.device_peak for span in self.spans.values())
        self.spans.clear()
        self._events.clear()
        self._lines.clear()
        self.shared = Shared()

    def add_events(self, events: list[Event]) -> None:
        """Keeps what one thread did; all of one kind."""
        if events:
            self._events[type(events[0])] += events
            self.saw(events[-1].end)

    def add_line(self, line: lines.Line) -> None:
        """Keeps a line as it is."""
        self._lines[type(line)].append(line)

    def saw(self, time_ns: int) -> None:
        """Notes that the process was alive at a time."""
        self.last_time = max(self.last_time, time_ns)


def total_of(edge: Edge | None) -> int | None:
    """Returns the resident bytes at an edge, all kinds together."""
    if edge is None or edge.anonymous is None:
        return None
    return int(edge.anonymous) + int(edge.file or 0) + int(edge.shared or 0)


def between(start: int | None, end: int | None) -> int | None:
    """Returns what a counter rose by between two edges; None if unknown."""
    return None if start is None or end is None else max(0, end - start)


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
    process = _read(path)
    if process is None or process.first_time >= process.header["clock_base_ns"]:
        return process
    # Either the header says what cannot be, or what is earlier does: most lines are sound.
    base = process.header["clock_base_ns"]
    starts = sorted(span.start for span in process.spans.values())
    return _read(path, starts[0] if starts and starts[len(starts) // 2] < base else base)


def _read(path: Path, since: int | None = None) -> Process | None:
    """Reads one journal.

    Args:
        path: The journal.
        since: Its clock base, where the header may be wrong; what says that it was earlier is left out.
    """
    damage = journal.Damage()
    process: Process | None = None
    early: list[lines.Line] = []
    open_spans: dict[int, OpenedSpan] = {}
    for line in codec.read(path, damage):
        if process is not None:
            _add(process, open_spans, line, since)
        elif not isinstance(line, lines.Header):
            early.append(line)
        elif line.facts.get("schema") != journal.SCHEMA or _version(line) > journal.VERSION:
            raise TraceError(f"{path} is not a journal that this hftrace can read: upgrade hftrace")
        elif is_whole(line.facts):
            process = Process(line.facts, damage=damage)
        else:
            damage.lines += 1
    if process is None and early:
        facts = header_of(path, early)
        process = None if facts is None else Process(facts, damage=damage)
    if process is not None:
        if since is not None and since != process.header["clock_base_ns"]:
            process.header = {**process.header, "clock_base_ns": since, "wall_clock_ns": None}
            damage.lines += 1
        process.saw(process.header["clock_base_ns"])
        for line in early:
            _add(process, open_spans, line, since)
        _add_stopped(process, path)
        place_orphans(process.spans, process.orphans, process.damage)
    return process


def _version(header: lines.Header) -> int:
    version = header.facts.get("version", 0)
    return version if type(version) is int else 0


def _add(process: Process, open_spans: dict[int, OpenedSpan], line: lines.Line, since: int | None) -> None:
    """Takes in a line that is not the header."""
    earliest = earliest_of(line)
    if earliest is not None:
        if since is not None and earliest < since:
            process.damage.lines += 1
            return
        process.first_time = min(process.first_time, earliest)
    if isinstance(line, lines.Begin):
        _begin(process, open_spans, line)
    elif isinstance(line, lines.End):
        _end(process, open_spans, line)
    elif isinstance(line, lines.Events):
        process.add_events(decode(line))
    elif isinstance(line, lines.Hook):
        process.hooks[line.number] = line
    elif isinstance(line, lines.Thread):
        process.threads[line.thread] = line.name
    elif isinstance(line, lines.Facts):
        process.facts[line.block].append(line.values)
    elif isinstance(line, lines.Error):
        process.errors.append(line)
    elif isinstance(line, lines.Lost):
        process.lost += line.lines
    elif isinstance(line, lines.Stop):
        process.stopped = True
        process.saw(line.time_ns)
    elif isinstance(line, lines.Header):
        process.damage.lines += 1  # it is the first line of a journal that is whole, and no other
    else:
        whole = restore(line)
        process.restored |= whole is not line
        process.add_line(whole)


def _add_stopped(process: Process, path: Path) -> None:
    """Takes in what the process said elsewhere when its journal could not be written on."""
    said = stopped.read(path)
    if said is None:
        return
    process.journal_stopped, process.recorded_until = said.reason, process.last_time
    process.lost += said.lines
    for block, values in said.facts.items():
        process.facts[block].append(values)
    process.unrecorded_loads = dict(said.loads)
    for span in process.spans.values():
        if span.parent is None and span.phase == "load":
            if span.end is None and span.id in said.ended:
                ended, status = said.ended[span.id]
                span.end, span.status = max(ended, span.start), process.shared.one(status)
            if span.end is not None and span.status in process.unrecorded_loads:
                process.unrecorded_loads[span.status] -= 1
    process.unrecorded_loads = {name: left for name, left in process.unrecorded_loads.items() if left > 0}
    process.stopped = True


def _begin(process: Process, open_spans: dict[int, OpenedSpan], line: lines.Begin) -> None:
    if line.span in process.spans:
        process.damage.lines += 1  # there is one of that number already
        return
    if line.parent is not None and line.parent not in process.spans:
        around = [each.id for each in open_spans.values() if each.thread == line.thread]
        process.orphans[line.span] = around[-1] if around else None
    shared = process.shared
    span = OpenedSpan(
        line.span,
        line.parent,
        shared.one(line.phase),
        shared.one(line.name),
        line.hook,
        line.thread,
        line.time_ns,
        _since_last_edge(process, line.edge),
        {name: shared.one(value) for name, value in line.attributes.items()},
    )
    _mark(open_spans.values(), span.edge)
    span.peak = total_of(span.edge)
    span.device_peak = {name: device.allocated for name, device in (span.edge.devices or {}).items()}
    process.spans[span.id] = span
    open_spans[span.id] = span
    process.saw(span.start)


def _end(process: Process, open_spans: dict[int, OpenedSpan], line: lines.End) -> None:
    span = process.spans.get(line.span)
    if span is None:
        return
    if span.end is not None or line.time_ns < span.start:
        process.damage.lines += 1
        return
    edge = _since_last_edge(process, line.edge)
    _mark(open_spans.values(), edge)
    open_spans.pop(span.id, None)
    span.end, span.end_edge = line.time_ns, edge
    span.status = process.shared.one(line.status)
    one = process.shared.one
    notes = {key: one(value) for key, value in line.attributes.items() if not key.startswith("hftrace_")}
    span.attributes.update(notes)
    process.saw(line.time_ns)


def _since_last_edge(process: Process, edge: Edge) -> Edge:
    """Returns an edge with the allocators' peaks since the edge before it.

    On request torch's own peak is left alone: one that is no higher than it was may be from before the load,
    and all that is known is what was allocated at the edge.
    """
    if not edge.devices:
        # Memory changes at few of the edges.
        return process.shared.one(edge)
    if process.header.get("device_peaks_reset", True):
        return edge
    devices = {}
    for name, device in edge.devices.items():
        known = process.device_marks.get(name)
        rose = known is not None and device.peak > known
        devices[name] = device if rose else Allocator(device.allocated, device.reserved, device.allocated)
        process.device_marks[name] = device.peak
    return edge._replace(devices=devices)


def _mark(spans: Iterable[OpenedSpan], edge: Edge) -> None:
    """Folds a watermark into all spans open since the last one: a parent's peak holds its child's."""
    mark = edge.watermark
    if mark is None:
        mark = total_of(edge)
    for span in spans:
        span.peak = greater(span.peak, mark)
        for name, device in (edge.devices or {}).items():
            span.device_peak[name] = max(span.device_peak.get(name, 0), device.peak)
