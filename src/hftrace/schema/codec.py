"""Writes and reads the lines of a journal: nothing else knows where in a line a field stands.

A line in a file is a JSON array whose first item is its kind
(:mod:`hftrace.schema.journal`), in memory an object of a class of
:mod:`hftrace.schema.lines`. More fields than are known here, and lines of an
unknown kind, are left out: a newer hftrace wrote them.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from types import NoneType
from typing import Any

from hftrace.schema import events, journal, lines

_CLASSES: dict[str, type[Any]] = {
    journal.HEADER: lines.Header,
    journal.HOOK: lines.Hook,
    journal.BEGIN: lines.Begin,
    journal.END: lines.End,
    journal.SLICES: lines.Slices,
    journal.KEYS: lines.Keys,
    journal.RENAMES: lines.Renames,
    journal.FILE: lines.File,
    journal.DOWNLOAD: lines.Download,
    journal.ANSWER: lines.Answer,
    journal.CHECKPOINT: lines.Checkpoint,
    journal.RESIDENT: lines.Resident,
    journal.MODEL: lines.Model,
    journal.LAYOUTS: lines.Layouts,
    journal.TENSORS: lines.Tensors,
    journal.WRITES: lines.Writes,
    journal.VERIFIED: lines.Verified,
    journal.THREAD: lines.Thread,
    journal.ERROR: lines.Error,
    journal.FACTS: lines.Facts,
    journal.DEVICE: lines.Device,
    journal.LOST: lines.Lost,
    journal.STOP: lines.Stop,
    journal.SAMPLE: lines.Sample,
    journal.LIMIT: lines.Limit,
    journal.ASSIGNED: lines.Assigned,
    journal.ORIGINS: lines.Origins,
    journal.KEPT: lines.Kept,
}
_PLAIN = {int, NoneType}
_KINDS = {line_class: kind for kind, line_class in _CLASSES.items()}


def to_line(line: lines.Line) -> list[Any]:
    """Returns the JSON array of a line."""
    return list(line) if isinstance(line, lines.Events) else [_KINDS[type(line)], *line]


def from_line(items: list[Any]) -> lines.Line | None:
    """Returns the line of a JSON array; None for a kind that this version does not know.

    Raises:
        LookupError, TypeError, ValueError: Fields are missing, or what holds them is of another type.
    """
    kind, *fields = items
    if kind in journal.EVENT_KINDS:
        return lines.Events(kind, items[1], _batch(items))
    if kind == journal.SLICES:
        return lines.Slices(items[1], _batch(items))
    if kind == journal.TENSORS:
        return lines.Tensors(items[1], _batch(items))
    line_class = _CLASSES.get(kind)
    if line_class is None:
        return None
    if kind in _WITH_PARTS:
        return _WITH_PARTS[kind](*fields)
    line: lines.Line = line_class(*fields[: len(line_class._fields)])
    return line


def _begin(
    span: int,
    parent: int | None,
    phase: str,
    name: str,
    hook: int | None,
    thread: int,
    time_ns: int,
    edge: Any,
    attributes: Any,
    *_: Any,
) -> lines.Begin:
    known = attributes if isinstance(attributes, dict) else {}
    return lines.Begin(span, parent, phase, name, hook, thread, time_ns, _edge(edge), known)


def _end(span: int, time_ns: int, edge: Any, status: str, attributes: Any, *_: Any) -> lines.End:
    return lines.End(span, time_ns, _edge(edge), status, attributes if isinstance(attributes, dict) else {})


def _device(time_ns: int, devices: dict[str, Any], *_: Any) -> lines.Device:
    readings = {name: lines.AllocatorReading(*values[:2]) for name, values in devices.items()}
    return lines.Device(time_ns, readings)


def _layouts(span: int, layouts: list[Any], *_: Any) -> lines.Layouts:
    return lines.Layouts(span, [lines.Layout(*layout) for layout in layouts])


def _checkpoint(
    span: int, paths: list[str], shares: list[float | None], identities: Any = None, *_: Any
) -> lines.Checkpoint:
    known = [*map(lines.Identity.of, identities)] if isinstance(identities, list) else None
    return lines.Checkpoint(span, paths, shares, known)


def _kept(path: str, identity: Any, copy: str, *_: Any) -> lines.Kept:
    return lines.Kept(path, lines.Identity.of(identity), copy)


_WITH_PARTS: dict[str, Callable[..., lines.Line]] = {
    journal.BEGIN: _begin,
    journal.END: _end,
    journal.DEVICE: _device,
    journal.LAYOUTS: _layouts,
    journal.CHECKPOINT: _checkpoint,
    journal.KEPT: _kept,
}
"""What makes a line of fields that have fields of their own."""


def _batch(items: list[Any]) -> list[Any]:
    """Returns all fields of the first row of a line that holds many, then of the second, and so on."""
    return events.decode(items)


def _edge(items: Any) -> lines.Edge:
    """Returns an edge; what is missing or damaged in it is unknown."""
    edge = lines.Edge(*items[: len(lines.Edge._fields)]) if isinstance(items, list) else lines.Edge()
    if not edge.devices and _PLAIN.issuperset(map(type, edge)):
        return edge  # as all are without a device
    known: dict[str, Any] = {name: figure for name, figure in edge._asdict().items() if type(figure) is int}
    known["devices"] = _allocators(edge.devices) if edge.devices else None
    return lines.Edge(**known)


def _allocators(readings: Any) -> dict[str, lines.Allocator] | None:
    try:
        return {name: lines.Allocator(*values[:3]) for name, values in readings.items()}
    except (AttributeError, TypeError):
        return None


def read(path: str | os.PathLike[str], *, from_header: bool = False) -> Iterator[lines.Line]:
    """Yields the lines of a journal; what is cut, or of an unknown kind, is left out.

    Args:
        path: The journal, or a sampler's file.
        from_header: Whether what stands before the header is left out too,
            whatever it is: nothing does in a journal that is whole.

    Raises:
        TraceError: The file cannot be read.
        LookupError, TypeError, ValueError: A line is shorter than its kind ever was.
    """
    arrays = journal.lines(path)
    if from_header:
        arrays = itertools.dropwhile(_is_no_header, arrays)
    for items in arrays:
        line = from_line(items)
        if line is not None:
            yield line


def _is_no_header(items: list[Any]) -> bool:
    kind, *_ = items
    return bool(kind != journal.HEADER)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns the facts of a journal's header; None where the file does not begin with one.

    Raises:
        TraceError: The file cannot be read.
    """
    first = next(journal.lines(path), None)
    match first:
        case [journal.HEADER, dict(facts), *_] if facts.get("schema") == journal.SCHEMA:
            return facts
    return None


def parse(raw: bytes) -> lines.Line | None:
    """Returns one line as it stands in the file; None where it is damaged or of an unknown kind."""
    try:
        return from_line(json.loads(raw))
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def kind_of(raw: bytes) -> str:
    """Returns the kind of a line without reading what is in it; empty where it has none."""
    start, quote, rest = raw.partition(b'"')
    return rest.partition(b'"')[0].decode("ascii", "replace") if quote and start == b"[" else ""
