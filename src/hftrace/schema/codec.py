"""Reads the lines of a journal; nothing but this and :mod:`~hftrace.schema.encoding` knows a field's place.

A line in a file is a JSON array whose first item is its kind
(:mod:`hftrace.schema.journal`), in memory an object of a class of
:mod:`hftrace.schema.lines`. More fields than are known here, and lines of an
unknown kind, are left out: a newer hftrace wrote them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from hftrace.schema import events, journal, line_checks, lines
from hftrace.schema.encoding import CLASSES

MAX_BEFORE_HEADER_BYTES = 16 << 20
"""A file that has no whole line in so many bytes is no journal, and is not read to its end to find one."""


def from_line(items: list[Any], damage: journal.Damage | None = None) -> lines.Line | None:
    """Returns the line of a JSON array; None for a kind that this version does not know.

    Args:
        items: The array.
        damage: Counts lines of which a part is left out.

    Raises:
        LookupError, TypeError, ValueError: Fields are missing, or hold what they cannot.
    """
    noted = journal.Damage() if damage is None else damage
    line = _made(items, noted)
    return None if line is None else line_checks.checked(line, noted)


def _made(items: list[Any], damage: journal.Damage) -> lines.Line | None:
    kind, *fields = items
    if kind in journal.EVENT_KINDS:
        return lines.Events(kind, items[1], _batch(items))
    if kind == journal.SLICES:
        return lines.Slices(items[1], _batch(items))
    if kind == journal.TENSORS:
        return lines.Tensors(items[1], _batch(items))
    line_class = CLASSES.get(kind)
    if line_class is None:
        return None
    if kind in _WITH_PARTS:
        return _WITH_PARTS[kind](damage, *fields)
    line: lines.Line = line_class(*fields[: len(line_class._fields)])
    return line


def _begin(
    damage: journal.Damage,
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
    known = line_checks.edge(edge, damage)
    return lines.Begin(span, parent, phase, name, hook, thread, time_ns, known, _noted(attributes, damage))


def _end(
    damage: journal.Damage, span: int, time_ns: int, edge: Any, status: str, attributes: Any, *_: Any
) -> lines.End:
    return lines.End(span, time_ns, line_checks.edge(edge, damage), status, _noted(attributes, damage))


def _noted(attributes: Any, damage: journal.Damage) -> dict[str, Any]:
    if isinstance(attributes, dict):
        return attributes
    damage.lines += 1
    return {}


def _device(damage: journal.Damage, time_ns: int, devices: dict[str, Any], *_: Any) -> lines.Device:
    return lines.Device(time_ns, line_checks.readings(devices))


def _layouts(damage: journal.Damage, span: int, layouts: list[Any], *_: Any) -> lines.Layouts:
    # Tensors name a layout by its place: one that is damaged takes all with it.
    return lines.Layouts(span, [line_checks.layout(layout) for layout in layouts])


def _checkpoint(
    damage: journal.Damage,
    span: int,
    paths: list[str],
    shares: list[float | None],
    identities: Any = None,
    *_: Any,
) -> lines.Checkpoint:
    known = [*map(lines.Identity.of, identities)] if isinstance(identities, list) else None
    return lines.Checkpoint(span, paths, shares, known)


def _kept(damage: journal.Damage, path: str, identity: Any, copy: str, *_: Any) -> lines.Kept:
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
    """Returns all fields of the first row of a line that holds many, then of the second, and so on.

    Raises:
        ValueError: It cannot be taken apart.
    """
    rows = events.decode(items)
    if not line_checks.is_decoded(items, rows):
        raise ValueError("rows that are cut")
    return rows


def read(path: str | os.PathLike[str], damage: journal.Damage | None = None) -> Iterator[lines.Line]:
    """Yields the lines of a journal; what is cut, damaged, or of an unknown kind, is left out.

    Args:
        path: The journal, or a sampler's file.
        damage: Counts the lines that are damaged, of which all or a part is left out.

    Raises:
        TraceError: The file cannot be read.
    """
    noted = journal.Damage() if damage is None else damage
    for items in journal.lines(path, noted):
        try:
            line = from_line(items, noted)
        except (LookupError, TypeError, ValueError):
            noted.lines += 1
            continue
        if line is not None:
            yield line


def read_header(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns the facts of a journal's header; None where the file does not begin with one.

    Raises:
        TraceError: The file cannot be read.
    """
    first = next(journal.lines(path, within=MAX_BEFORE_HEADER_BYTES), None)
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
