"""The tables of several traces as one: every id and every time in them is moved, and no row is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hftrace.replay.merging.parts import Part
from hftrace.schema.model import File, Import, Request, Row, Sample, Span, Table, Tensor

Change = Callable[[Any], Any]
MACHINES_APART = 10_000_000
"""Added to the number of a process where another machine has one of the same number; no kernel gives more
than four million."""


def renumber(parts: list[Part]) -> None:
    """Says what each part has to add to its ids, and which numbers its processes get."""
    spans = imports = watched = 0
    taken: set[int] = set()
    for part in parts:
        part.offset, part.imports_offset, part.watched_offset = spans, imports, watched
        trace = part.trace
        spans += max(trace.spans.column("id"), default=0)
        imports += max(trace.imports.column("id"), default=0)
        watched += max((model for model in trace.watched.column("model") if model is not None), default=0)
        own = {pid for pid in trace.spans.column("pid") if pid is not None}
        own |= {process["pid"] for process in part.processes() if type(process.get("pid")) is int}
        for pid in sorted(own & taken):
            free = pid
            while free in taken or free in own:
                free += MACHINES_APART
            part.pids[pid] = free
            own.add(free)
        taken |= own


def span_table(parts: list[Part]) -> Table[Span]:
    """Returns the spans of all parts."""
    return _joined(
        Span,
        [
            (part, part.trace.spans, {"id": _ids(part), "parent": _ids(part), **_spans(part)})
            for part in parts
        ],
    )


def _spans(part: Part) -> dict[str, Change]:
    moved = _times(part)
    return {"start_ns": moved, "end_ns": moved, "pid": _pids(part), "attributes": _attributes(part)}


def tensor_table(parts: list[Part], name: str) -> Table[Tensor]:
    """Returns the rows of one of the tables of tensors.

    Args:
        parts: The traces.
        name: ``tensors``, ``at_return`` or ``watched``.
    """
    times = [field.name for field in dataclasses.fields(Tensor) if field.name.endswith("_ns")]
    joined = []
    for part in parts:
        table = getattr(part.trace, name)
        if name == "at_return" and not len(table):
            table = (
                part.trace.tensors
            )  # nothing was changed after its loads, and in another part something was
        changes: dict[str, Change] = {
            **dict.fromkeys(times, _times(part)),
            **dict.fromkeys(("span", "load"), _ids(part)),
            "model": _ids(part) if name != "watched" else _plus(part.watched_offset),
        }
        joined.append((part, table, changes))
    if name == "at_return" and not any(len(part.trace.at_return) for part in parts):
        return Table.of(Tensor, [])
    return _joined(Tensor, joined)


def file_table(parts: list[Part]) -> Table[File]:
    """Returns the files of all parts."""
    return _joined(File, [(part, part.trace.files, {"asked_by": _ids(part)}) for part in parts])


def request_table(parts: list[Part]) -> Table[Request]:
    """Returns the requests of all parts."""
    return _joined(
        Request,
        [(part, part.trace.requests, {"asked_by": _ids(part), "time_ns": _times(part)}) for part in parts],
    )


def sample_table(parts: list[Part]) -> Table[Sample]:
    """Returns the samples of all parts, in order of time. One that names no process gets the only one."""
    joined = []
    for part in parts:
        pids = {pid for pid in part.trace.spans.column("pid") if pid is not None}
        only = next(iter(pids)) if len(pids) == 1 else None
        changes: dict[str, Change] = {"time_ns": _times(part), "pid": _pids(part, only)}
        joined.append((part, part.trace.samples, changes))
    table = _joined(Sample, joined)
    times = table.column("time_ns")
    order = sorted(range(len(table)), key=times.__getitem__)
    return Table(Sample, {name: [column[row] for row in order] for name, column in table.columns.items()})


def import_table(parts: list[Part]) -> Table[Import]:
    """Returns the imports of all parts."""
    joined = []
    for part in parts:
        own = _plus(part.imports_offset)
        changes: dict[str, Change] = {
            "id": own,
            "parent": own,
            "span": _ids(part),
            **dict.fromkeys(("start_ns", "end_ns"), _times(part)),
            "pid": _pids(part),
        }
        joined.append((part, part.trace.imports, changes))
    return _joined(Import, joined)


def _joined(
    row_type: type[Row], parts: Sequence[tuple[Part, Table[Row], Mapping[str, Change]]]
) -> Table[Row]:
    columns: dict[str, list[Any]] = {field.name: [] for field in dataclasses.fields(row_type)}
    for _, table, changes in parts:
        for name, column in columns.items():
            change = changes.get(name)
            values = table.column(name)
            column += values if change is None else [change(value) for value in values]
    return Table(row_type, columns)


def _plus(offset: int) -> Change:
    return lambda value: None if value is None else value + offset


def _ids(part: Part) -> Change:
    return _plus(part.offset)


def _times(part: Part) -> Change:
    return _plus(part.shift_ns)


def _pids(part: Part, only: int | None = None) -> Change:
    return lambda pid: part.pids.get(pid, pid) if pid is not None else part.pids.get(only or -1, only)


def _attributes(part: Part) -> Change:
    """Returns what moves the ids that stand in the attributes of a span."""
    offset = part.offset

    def moved(attributes: Any) -> Any:
        if not isinstance(attributes, dict) or not offset:
            return attributes
        changed = {}
        if type(attributes.get("of_load")) is int:
            changed["of_load"] = attributes["of_load"] + offset
        if isinstance(attributes.get("alive"), list):
            changed["alive"] = [each + offset for each in attributes["alive"] if type(each) is int]
        return {**attributes, **changed} if changed else attributes

    return moved
