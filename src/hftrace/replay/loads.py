"""Sorts what was recorded by the outermost load that it belongs to."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hftrace.replay.events import Convert, ModuleCopy, Move, Placement, Read, Unpacking
from hftrace.replay.headers import StoredTensor
from hftrace.replay.mismatches import Mismatch, errors_of, messages, mismatches
from hftrace.replay.nesting import roots
from hftrace.replay.reader import OpenedSpan, Process
from hftrace.replay.reported import reported_names
from hftrace.replay.timeline import LatestOpen, Timeline, timelines_by_thread
from hftrace.replay.weight_files import WeightFile, add_files
from hftrace.schema import lines

MAX_LOADS_AT_ONCE = 64
"""A lazy tensor's address may come again in a later load. Of the loads that had it and had begun, so many are
looked at, the latest first: the one that was read is behind those alone that began and ended meanwhile."""

INTO_MODEL = frozenset({"load_checkpoint_in_model", "load_offloaded_weights"})
"""The functions of accelerate that put tensors into a model: a file's, and up to 4.49 those of a sharded
checkpoint that waited in a folder while the rest was offloaded."""

REMADE = "postprocess_model"
"""The operation that makes parameters anew after all have been loaded."""

LineOfSpan = TypeVar(
    "LineOfSpan",
    lines.Slices,
    lines.Keys,
    lines.Renames,
    lines.File,
    lines.Download,
    lines.Checkpoint,
    lines.Resident,
    lines.Model,
    lines.Layouts,
    lines.Tensors,
    lines.Writes,
    lines.Verified,
    lines.Measured,
)


@dataclass
class LoadRecord:
    """Everything that was recorded of one outermost load; times are raw clock readings."""

    span: int
    thread: int
    start: int
    end: int
    status: str
    root: int
    """The outermost span: another one where this is a part of a load that loads several models."""
    timelines: dict[int, Timeline]
    phases: dict[int, str]
    span_files: dict[int, str]
    span_starts: dict[int, int]
    parts_read: dict[str, int]
    """Bytes by file, of parts that a loader said it reads, and not for which tensor each of them is."""
    requests: dict[tuple[str, str], int]
    """HTTP requests by the (repository, file name) that they were for."""
    assigns: bool = False
    """Whether a loader that goes by module (to 4.50) replaced parameters, instead of copying into them."""
    slices: dict[int, str] = field(default_factory=dict)
    handing: set[int | None] = field(default_factory=set)
    """Spans whose slices are handed out by something that may have read before it is asked."""
    handed_out: set[str] = field(default_factory=set)
    """Keys whose bytes may have been read before the loader asked for them, by what handed them out."""
    keys: dict[str, tuple[str, StoredTensor]] = field(default_factory=dict)
    """Tensors of pickles and state dicts: key to (path, what is stored)."""
    renames: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Files asked for: the span, and the facts of :class:`hftrace.schema.lines.File`."""
    downloads: list[dict[str, Any]] = field(default_factory=list)
    """Facts of :class:`hftrace.schema.lines.Download`."""
    checkpoint: dict[str, WeightFile] = field(default_factory=dict)
    """Weight files by path, in the loader's order."""
    model: dict[str, Any] | None = None
    layouts: list[lines.Layout] = field(default_factory=list)
    rows: list[lines.ModelTensor] = field(default_factory=list)
    tied_from: dict[str, str] = field(default_factory=dict)
    """By the name of each parameter that ``tie_weights`` let go: the name of the one that took its place."""
    tie_groups: list[list[str]] = field(default_factory=list)
    reads: dict[str, Read] = field(default_factory=dict)
    """By checkpoint key."""
    converts: dict[str, Convert] = field(default_factory=dict)
    """By the model's name."""
    handed: dict[str, Convert] = field(default_factory=dict)
    """What a quantiser was handed, up to 4.57, by the name that it had in the checkpoint or the model."""
    remade: dict[str, Convert] = field(default_factory=dict)
    """What a quantiser made anew of parameters that had been loaded; sources are names in the model."""
    places: list[Placement] = field(default_factory=list)
    allocations: list[Placement] = field(default_factory=list)
    """What the loader put into the model for lack of a source: memory that nothing was written into."""
    writes: dict[int, lines.Write] = field(default_factory=dict)
    """By the tensor's identity."""
    verified: dict[str, lines.Verification] = field(default_factory=dict)
    measured: dict[str, lines.TensorStatistics] = field(default_factory=dict)
    """By the tensor's name."""
    elsewhere: int = 0
    """So many keys of the checkpoint are for other ranks, by the loader's own account."""
    reported: dict[str, set[str]] = field(default_factory=dict)
    """Names that the loader itself calls ``missing``, ``unexpected`` or ``mismatched``."""
    mismatches: list[Mismatch] = field(default_factory=list)
    """What a load ended for, of a shape that the model has otherwise."""
    built_on: str | None = None
    """Where the model's parameters were made: ``meta``, or a device; None if unknown."""
    put_together: bool = False
    """Whether a class of transformers made the model of others that were loaded, on a real device."""
    meta_buffers: bool | None = None
    """Whether this loader builds buffers on the meta device too; None if unknown."""
    initializing: list[tuple[int, int]] = field(default_factory=list)
    """When the loader initialised."""
    renames_known: bool = False
    """Whether :attr:`renames` holds every key that the loader renames."""
    own_names: bool = False
    """Whether a key went nowhere that is not the model's own name: nobody tried it with another prefix."""
    modules: list[ModuleCopy] = field(default_factory=list)
    unpackings: list[Unpacking] = field(default_factory=list)
    by_key: dict[str, set[str]] = field(default_factory=dict)
    """Files of which the program takes the keys that it wants, and those of them that the model refused.

    The others were never asked for."""

    def initializes_at(self, time_ns: int) -> bool:
        """Returns whether the loader was initialising what has no source."""
        return any(start <= time_ns <= end for start, end in self.initializing)

    def innermost(self, thread: int, time_ns: int) -> int | None:
        """Returns the innermost span; that of the load's own thread for a worker without spans."""
        timeline = self.timelines.get(thread)
        found = timeline.innermost(time_ns) if timeline is not None else None
        if found is None and thread != self.thread:
            found = self.timelines[self.thread].innermost(time_ns)
        return found


def load_records(process: Process) -> list[LoadRecord]:
    """Returns what was recorded of each outermost load and of its parts, in the order of their starts.

    Every line and event is looked at once, however many loads there are.
    """
    parts = {span.id for span in process.spans.values() if span.attributes.get("part") is True}
    parts &= {model.span for model in process.lines_of(lines.Model)}
    root_of = roots(process.spans, parts)
    outermost = roots(process.spans)
    spans_of: dict[int, list[OpenedSpan]] = defaultdict(list)
    for span in process.spans.values():
        spans_of[root_of[span.id]].append(span)
    loads = [
        span
        for span in process.spans.values()
        if span.id in parts or (span.phase == "load" and span.parent is None)
    ]
    loads.sort(key=lambda span: span.start)
    said = messages(process)
    records = {load.id: _record(load, outermost[load.id], spans_of[load.id], said) for load in loads}
    _sort_lines(process, {span: records[root] for span, root in root_of.items() if root in records})
    ordered = list(records.values())
    groups = _distinct(group for fact in process.facts.get("ties", []) for group in fact.get("groups", []))
    loader: dict[str, Any] = {}
    for fact in process.facts.get("environment", []):
        loader.update(fact.get("loader") or {})
    for fact in process.facts.get("tied", []):
        tied = records.get(fact.get("load", 0))
        if tied is not None:
            tied.tied_from.update(fact.get("sources") or {})
    for fact in process.facts.get("by_key", []):
        if (record := records.get(fact.get("load", 0))) is not None:
            record.by_key.setdefault(str(fact.get("path")), set()).update(fact.get("refused") or ())
    for record in ordered:
        record.tie_groups += groups
        record.meta_buffers = loader.get("meta_buffers")
    _sort_events(process, ordered)
    return ordered


def _record(load: OpenedSpan, root: int, spans: list[OpenedSpan], said: list[str]) -> LoadRecord:
    assert load.end is not None
    built_on = next((str(span.attributes["device"]) for span in spans if _says_device(span)), None)
    return LoadRecord(
        span=load.id,
        thread=load.thread,
        start=load.start,
        end=load.end,
        status=load.status or "ok",
        root=root,
        timelines=timelines_by_thread(spans),
        phases={span.id: span.phase for span in spans},
        span_files={span.id: str(span.attributes["file"]) for span in spans if span.attributes.get("file")},
        parts_read=_parts_read(spans),
        span_starts={span.id: span.start for span in spans},
        requests=requests_by_file(spans),
        assigns=any(span.attributes.get("assigns") is True for span in spans),
        elsewhere=max((int(span.attributes.get("elsewhere", 0)) for span in spans), default=0),
        reported=reported_names(spans),
        mismatches=mismatches([span.attributes for span in spans], errors_of(load, said)),
        initializing=[(span.start, span.end or span.start) for span in spans if span.phase == "initialize"],
        built_on=built_on,
        put_together=load.attributes.get("composite") is True and built_on not in (None, "meta"),
        renames_known=any("renamed" in span.attributes for span in spans),
        own_names=load.attributes.get("own_names") is True,
        # Slices are named before their span begins, under the one around it.
        handing={span.parent for span in spans if span.attributes.get("handed_by")},
    )


def _parts_read(spans: list[OpenedSpan]) -> dict[str, int]:
    found: dict[str, int] = {}
    for span in spans:
        for name, size in (span.attributes.get("parts_read") or {}).items():
            found[name] = found.get(name, 0) + size
    return found


def _says_device(span: OpenedSpan) -> bool:
    return span.phase == "instantiate" and span.attributes.get("device") is not None


def requests_by_file(spans: list[OpenedSpan]) -> dict[tuple[str, str], int]:
    """Counts the HTTP requests by (repository, file name); those that are for no file are left out."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for span in spans:
        attributes = span.attributes
        if attributes.get("request") is True and attributes.get("name"):
            counts[attributes.get("repo", ""), attributes["name"]] += 1 + attributes.get("redirects", 0)
    return counts


def _distinct(groups: Iterable[list[str]]) -> list[list[str]]:
    """Returns the groups without repetitions: loads of one model say the same of it each time."""
    return list({tuple(group): group for group in groups}.values())


def _sort_lines(process: Process, record_of: Mapping[int, LoadRecord]) -> None:
    """Gives each line to the load of the span that it names."""

    def of(kind: type[LineOfSpan]) -> Iterable[tuple[LineOfSpan, LoadRecord]]:
        for line in process.lines_of(kind):
            record = record_of.get(line.span) if line.span is not None else None
            if record is not None:
                yield line, record

    for slices, record in of(lines.Slices):
        record.slices.update(slices.keys())
        if slices.span in record.handing:
            record.handed_out.update(record.slices.values())
    for keys, record in of(lines.Keys):
        for key, dtype, shape, size in keys.entries():
            record.keys[key] = (keys.source, StoredTensor(dtype, shape, None, size))
    for renames, record in of(lines.Renames):
        record.renames.update(renames.names())
    for writes, record in of(lines.Writes):
        record.writes.update((write.identity, write) for write in writes.entries())
    for verified, record in of(lines.Verified):
        record.verified.update((entry.name, entry) for entry in verified.entries())
    for measured, record in of(lines.Measured):
        record.measured.update((entry.name, entry) for entry in measured.entries())
    for file, record in of(lines.File):
        assert file.span is not None
        record.asked.append((file.span, file.facts))
    for download, record in of(lines.Download):
        record.downloads.append(download.facts)
    for checkpoint, record in of(lines.Checkpoint):
        add_files(record.checkpoint, checkpoint)
    for resident, record in of(lines.Resident):
        unknown: list[int | None] = [None] * len(resident.paths)
        columns = (resident.paths, resident.shares, resident.touched or unknown)
        for path, share, touched in zip(*columns, strict=False):
            if path in record.checkpoint:
                record.checkpoint[path].resident_after = share
                record.checkpoint[path].touched_bytes = touched
    for model, record in of(lines.Model):
        record.model = model.facts
    for layouts, record in of(lines.Layouts):
        record.layouts += layouts.layouts
    for tensors, record in of(lines.Tensors):
        record.rows += tensors.rows()


class _Finder:
    """Finds the load that an event belongs to: by thread where the load's own did it, else by time.

    Args:
        records: The loads, in the order of their starts.
    """

    def __init__(self, records: list[LoadRecord]) -> None:
        self._records = records
        self._starts = [record.start for record in records]
        self._latest = LatestOpen([(record.start, record.end) for record in records])
        self._of_thread: dict[int, tuple[LatestOpen, list[LoadRecord]]] = {}
        by_thread: dict[int, list[LoadRecord]] = defaultdict(list)
        self._with_slice: dict[int, list[int]] = defaultdict(list)
        for position, record in enumerate(records):
            by_thread[record.thread].append(record)
            for slice_id in record.slices:
                self._with_slice[slice_id].append(position)
        for thread, own in by_thread.items():
            self._of_thread[thread] = LatestOpen([(record.start, record.end) for record in own]), own

    def load_at(self, thread: int, time_ns: int) -> LoadRecord | None:
        """Returns the load that a thread worked for at a time."""
        if len(self._records) == 1:
            return self._records[0]
        if thread in self._of_thread:
            latest, own = self._of_thread[thread]
            found = latest.at(time_ns)
            if found is not None:
                return own[found]
        found = self._latest.at(time_ns)
        return self._records[found] if found is not None else None

    def load_of(self, read: Read) -> LoadRecord | None:
        """Returns the load whose lazy tensor was read: worker threads serve whichever load there is."""
        if len(self._records) == 1:
            return self._records[0]
        positions = self._with_slice.get(read.slice_id, [])
        begun = bisect.bisect_left(positions, bisect.bisect_right(self._starts, read.start))
        for position in reversed(positions[max(0, begun - MAX_LOADS_AT_ONCE) : begun]):
            if self._records[position].end >= read.start:
                return self._records[position]
        return self.load_at(read.thread, read.start)


def _sort_events(process: Process, records: list[LoadRecord]) -> None:
    """Gives each per-tensor event to its load."""
    find = _Finder(records)
    for read in process.events_of(Read):
        record = find.load_of(read)
        key = record.slices.get(read.slice_id) if record is not None else None
        if record is not None and key is not None:
            record.reads[key] = read
    for convert in process.events_of(Convert):
        record = find.load_at(convert.thread, convert.start)
        if record is not None:
            _conversions(record, convert)[convert.target] = convert
    for place in process.events_of(Placement):
        record = find.load_at(place.thread, place.start)
        if record is not None:
            # Where a loader initialises it puts in what has no source.
            (record.allocations if record.initializes_at(place.start) else record.places).append(place)
    for module in process.events_of(ModuleCopy):
        record = find.load_at(module.thread, module.start)
        if record is not None:
            record.modules.append(module)
    for turn in process.events_of(Unpacking):
        record = find.load_at(turn.thread, turn.start)
        if record is not None:
            record.unpackings.append(turn)
    for move in process.events_of(Move):
        record = find.load_at(move.thread, move.start)
        if record is not None:
            _add_move(process, record, move)


def _conversions(record: LoadRecord, convert: Convert) -> dict[str, Convert]:
    """Returns where a conversion belongs: the loader's own, or one of a quantiser's two ways."""
    if not convert.sources:
        return record.handed
    return record.remade if convert.operations == [REMADE] else record.converts


def _add_move(process: Process, record: LoadRecord, move: Move) -> None:
    inside = record.innermost(move.thread, move.start)
    phase = record.phases.get(inside or -1)
    placement = Placement(move.name, move.start, move.end, move.thread)
    if phase == "shard" or _function_of(process, inside) in INTO_MODEL:
        record.places.append(placement)
    elif phase == "initialize" or _function_of(process, inside).endswith("_load_pretrained_model"):
        # Up to 4.49 the loader's own body allocates what no shard has.
        record.allocations.append(placement)
    if inside is not None and inside in process.spans:
        attributes = process.spans[inside].attributes
        attributes["moved"] = attributes.get("moved", 0) + 1


def _function_of(process: Process, span: int | None) -> str:
    """Returns the name of the function that a span is a call of; empty where it is none."""
    found = process.spans.get(span) if span is not None else None
    hook = process.hooks.get(found.hook) if found is not None and found.hook is not None else None
    return hook.function if hook is not None else ""
