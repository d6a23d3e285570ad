"""The tensor ledgers of a process: each row follows its tensor from its load to the place where it is last.

A load knows its tensors by the names that they had then. An adapter wraps
modules, a model goes into another one, layers are replaced: the recorder says
of each tensor of the model as it is now which load it is from, what that load
called it, and what has become of it (:class:`hftrace.schema.lines.Origins`).
Each row is made where its tensor is known, and stands where it is now.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any, NamedTuple

from hftrace.replay.events import Convert, ModuleCopy
from hftrace.replay.keys import CheckpointHeaders
from hftrace.replay.loads import LoadRecord
from hftrace.replay.reader import Process
from hftrace.replay.tensors import build_tensor_ledger
from hftrace.schema import lines
from hftrace.schema.model import Table, Tensor

SAME, MADE, COPIED = "", "made", "copied"
"""Changes after which the load's own knowledge counts; :mod:`hftrace.record.identity` has all of them."""
CHANGES = {
    "computed": "computed",
    "state_dict": "state_dict",
    "blank": "uninitialized",
    "written": "unknown",
    "replaced": "unknown",
    "before": "unknown",
}
"""By what became of a tensor after its load: its provenance now."""
EVIDENCE = {
    "made": "adapter initialisation",
    "state_dict": "load_state_dict",
    "blank": "to_empty",
    "written": "written after the load",
    "replaced": "replaced after the load",
    "before": "loaded before the trace began",
}
"""The words for it; ``computed`` names the function itself."""
FROM_ITS_SOURCE = (
    "keys", "file", "offset", "stored_dtype", "stored_bytes", "read_start_ns", "read_end_ns", "placed_ns",
    "thread", "span", "convert_start_ns", "convert_end_ns",
)  # fmt: skip
"""Columns that say where a tensor's values came from, and no longer hold once they are others."""


class Ledgers(NamedTuple):
    """The ledger of one load."""

    record: LoadRecord
    tensors: Table[Tensor]
    """Of its model as it was seen last; empty but for unused keys where the model went into another one."""
    as_loaded: Table[Tensor]
    """When the load returned."""


@dataclasses.dataclass
class _Model:
    """A model as it was written down once."""

    facts: dict[str, Any]
    layouts: list[lines.Layout] = dataclasses.field(default_factory=list)
    rows: list[lines.ModelTensor] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Source:
    """What makes rows: a load, or one file that was put into a model by ``load_state_dict`` during it."""

    load: int
    path: str = ""
    copies: bool = False
    """Whether the rows are of copies: the tensors themselves have rows under the same names."""


def tensor_ledgers(process: Process, records: list[LoadRecord], headers: CheckpointHeaders) -> list[Ledgers]:
    """Returns the tensor ledger of each load of a process.

    Args:
        process: What the process wrote; loads whose models have changed say so in their spans.
        records: Its loads.
        headers: Of the weight files.
    """
    return _Builder(process, records, headers).ledgers()


class _Builder:
    def __init__(self, process: Process, records: list[LoadRecord], headers: CheckpointHeaders) -> None:
        self._process = process
        self._headers = headers
        self._records = {record.span: record for record in records}
        self._assigned: dict[int, list[lines.Assigned]] = defaultdict(list)
        for assigned in process.lines_of(lines.Assigned):
            self._assigned[assigned.span].append(assigned)
        self._origins = process.lines_of(lines.Origins)

    def ledgers(self) -> list[Ledgers]:
        """Returns the ledgers in the order of the loads."""
        found = {span: self._as_loaded(record) for span, record in self._records.items()}
        now = dict(found)
        for origins in self._origins:
            for replaced in origins.replaces:
                if replaced in found:
                    now[replaced] = _unused_rows(found[replaced])
            record = self._records.get(origins.span)
            if record is None:
                continue
            if origins.look:
                rows = self._rows(record, self._model_of(origins.look), origins)
                now[record.span] = _joined([rows, _unused_rows(found[record.span])])
                self._note(record.span, {"changed_by": origins.changed_by})
            else:
                now[record.span] = found[record.span]
        for fact in self._process.facts.get("stale", []):
            self._note(int(fact["load"]), {"changed_by": fact["changed_by"], "stale": True})
        return [Ledgers(record, now[span], found[span]) for span, record in self._records.items()]

    def _note(self, span: int, attributes: dict[str, Any]) -> None:
        if span in self._process.spans:
            self._process.spans[span].attributes.update(attributes)

    def _as_loaded(self, record: LoadRecord) -> Table[Tensor]:
        origins = next((each for each in self._origins if each.span == record.span and not each.look), None)
        if record.model is None or (origins is None and record.span not in self._assigned):
            return build_tensor_ledger(record, self._headers)
        return self._rows(record, _Model(record.model, record.layouts, record.rows), origins, unused=True)

    def _model_of(self, look: int) -> _Model:
        """Returns a model that was written down again."""
        model = _Model({})
        for facts in self._process.lines_of(lines.Model):
            if facts.span == look:
                model.facts = facts.facts
        for layouts in self._process.lines_of(lines.Layouts):
            if layouts.span == look:
                model.layouts += layouts.layouts
        for tensors in self._process.lines_of(lines.Tensors):
            if tensors.span == look:
                model.rows += tensors.rows()
        return model

    def _rows(
        self, record: LoadRecord, model: _Model, origins: lines.Origins | None, *, unused: bool = False
    ) -> Table[Tensor]:
        """Returns the rows of a model, each made by the load that its tensor is from.

        Args:
            record: The load whose model it is.
            model: The model.
            origins: Which of its tensors are not simply that load's.
            unused: Whether to add the keys of that load that went nowhere.
        """
        known = {row.name: row for row in origins.rows()} if origins is not None else {}
        places: dict[_Source, list[int]] = defaultdict(list)
        by_position = [
            known.get(row.name) or lines.KnownAs(row.name, record.span, row.name, SAME) for row in model.rows
        ]
        sources = [_Source(record.span)]
        sources += [_Source(record.span, assigned.path) for assigned in self._assigned.get(record.span, ())]
        for source in sources if unused else ():
            places[source] = []
        for at, origin in enumerate(by_position):
            places[self._source_of(origin)].append(at)
        parts, order, keys = [], [], []
        for source, positions in places.items():
            rows = [model.rows[at]._replace(name=by_position[at].known_as) for at in positions]
            view = self._view(source, dataclasses.replace(model, rows=rows), record)
            table = build_tensor_ledger(view, self._headers)
            current: dict[str, str] = {}
            for at in positions:
                current.setdefault(by_position[at].known_as, model.rows[at].name)
            names = [model.rows[at].name for at in positions]
            parts.append(_renamed(_first(table, len(positions)), names, current))
            order += positions
            if unused and source in sources:
                keys.append(_unused_rows(table))
        rows_in_order = _reordered(_joined(parts), order)
        _apply(rows_in_order, by_position)
        return _joined([rows_in_order, *keys])

    def _source_of(self, origin: lines.KnownAs) -> _Source:
        for assigned in self._assigned.get(origin.load, ()):
            if origin.change in (SAME, MADE) and any(name == origin.known_as for _, name in assigned.pairs()):
                return _Source(origin.load, assigned.path)
        return _Source(origin.load, copies=origin.change == COPIED)

    def _view(self, source: _Source, model: _Model, owner: LoadRecord) -> LoadRecord:
        """Returns the record of a load as if it had returned these rows under the names that it knew."""
        record = self._records.get(source.load) or _empty(owner)
        facts = {**model.facts, **(record.model or {}), "device_map": model.facts.get("device_map")}
        changes: dict[str, Any] = {"model": facts, "layouts": model.layouts, "rows": model.rows}
        files = {assigned.path for assigned in self._assigned.get(source.load, ())}
        if source.path:
            placed = [each for each in self._assigned[source.load] if each.path == source.path]
            at = [(each.time_ns, each.thread) for each in placed]
            pairs = [
                (key, name, *at[number])
                for number, each in enumerate(placed)
                for key, name in each.pairs()
                if key is not None
            ]
            changes |= {
                "converts": {
                    name: Convert(name, [key], [], time, time, thread) for key, name, time, thread in pairs
                },
                # A module of the model copied its tensors: what load_state_dict does.
                "modules": [
                    ModuleCopy(f"{module}." if module else "", time, time, thread)
                    for module, time, thread in {
                        (name.rpartition(".")[0], time, thread) for _, name, time, thread in pairs
                    }
                ],
                "places": [],
                "reads": {},
                "renames": {},
                "checkpoint": {path: file for path, file in record.checkpoint.items() if path == source.path},
                "keys": {key: stored for key, stored in record.keys.items() if stored[0] == source.path},
            }
        elif files:
            changes |= {
                "checkpoint": {path: file for path, file in record.checkpoint.items() if path not in files},
                "keys": {key: stored for key, stored in record.keys.items() if stored[0] not in files},
            }
        return dataclasses.replace(record, **changes)


def _empty(owner: LoadRecord) -> LoadRecord:
    """Returns the record of nothing, for tensors that no load has put there."""
    return LoadRecord(
        span=0,
        thread=owner.thread,
        start=owner.start,
        end=owner.start,
        status="ok",
        timelines=owner.timelines,
        phases={},
        span_files={},
        span_starts={},
        requests={},
    )


# -- tables ----------------------------------------------------------------------------------------------


def _first(table: Table[Tensor], count: int) -> Table[Tensor]:
    return Table(Tensor, {name: column[:count] for name, column in table.columns.items()})


def _unused_rows(table: Table[Tensor]) -> Table[Tensor]:
    at = [position for position, kind in enumerate(table.column("kind")) if kind == "unused"]
    return Table(Tensor, {name: [column[each] for each in at] for name, column in table.columns.items()})


def _joined(tables: list[Table[Tensor]]) -> Table[Tensor]:
    names = {name for table in tables for name in table.columns}
    return Table(Tensor, {name: [each for table in tables for each in table.column(name)] for name in names})


def _reordered(table: Table[Tensor], order: list[int]) -> Table[Tensor]:
    """Returns the rows in the order of the model; ``order`` has the place of each of them there."""
    at = sorted(range(len(order)), key=order.__getitem__)
    return Table(Tensor, {name: [column[each] for each in at] for name, column in table.columns.items()})


def _renamed(table: Table[Tensor], names: list[str], current: dict[str, str]) -> Table[Tensor]:
    tied = [current.get(name, name) if name is not None else None for name in table.column("tied_to")]
    return Table(Tensor, {**table.columns, "name": list(names), "tied_to": tied})


def _apply(table: Table[Tensor], origins: list[lines.KnownAs]) -> None:
    """Puts down what became of each tensor after its load."""
    columns = {name: table.column(name) for name in ("provenance", "device", "keys")}
    sources = {name: table.column(name) for name in FROM_ITS_SOURCE}
    for at, origin in enumerate(origins):
        word, _, detail = origin.change.partition(":")
        if word == MADE and not columns["keys"][at] and columns["device"][at] != "meta":
            columns["provenance"][at] = "initialized"
        if word not in CHANGES or columns["device"][at] == "meta":
            continue
        columns["provenance"][at] = CHANGES[word]
        for name, column in sources.items():
            column[at] = [] if name == "keys" else None
        if word == "state_dict":
            columns["keys"][at] = [detail]
    for name, column in {**columns, **sources}.items():
        table.columns[name] = column
