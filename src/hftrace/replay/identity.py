"""The tensor ledgers of a process: each row follows its tensor from its load to the place where it is last.

A load knows its tensors by the names that they had then. An adapter wraps
modules, a model goes into another one, layers are replaced: the recorder says
of each tensor of the model as it is now which load it is from, what that load
called it, and what has become of it (:class:`hftrace.schema.lines.Origins`).
Each row is made where its tensor is known, and stands where it is now.
"""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from typing import Any, NamedTuple

from hftrace.replay.changes import CAST, COPIED, MADE, REPLACED, SAME, WRITTEN, apply_changes
from hftrace.replay.events import Convert, ModuleCopy
from hftrace.replay.keys import CheckpointHeaders, keys_by_name, stored_tensors
from hftrace.replay.loads import LoadRecord
from hftrace.replay.reader import Process
from hftrace.replay.reported import of_adapter
from hftrace.replay.returned import empty_record, rows_by_load_name, weight_files_of
from hftrace.replay.rows import chosen, first, joined, renamed, reordered, unused_rows
from hftrace.replay.tensor_times import TensorTimes
from hftrace.replay.tensors import build_tensor_ledger
from hftrace.replay.tied import same_objects, tie_one_another
from hftrace.replay.unused import left_out_told, without_placed
from hftrace.schema import lines
from hftrace.schema.model import Table, Tensor

NOW = ("device_map", "offloaded_to")  # facts of a model as it is now
FILLING = ("load_model",)
"""Functions that put a file into a model that they are given, by ``load_state_dict``."""


class Ledgers(NamedTuple):
    """The ledger of one load."""

    record: LoadRecord
    tensors: Table[Tensor]
    """Of its model as it was seen last; empty but for unused keys where the model went into another one."""
    as_loaded: Table[Tensor]
    """When the load returned."""
    at_return: Table[Tensor] | None
    """The same without what earlier loads put there; None where no model was changed after its load."""


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
    path: str | None = None
    """The file; empty for tensors that were handed over and not seen to come from a file."""
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
        self._places: dict[int, dict[str, int]] = {}
        self._origins = process.lines_of(lines.Origins)
        self._returned = {
            span: rows_by_load_name(record, self._origins) for span, record in self._records.items()
        }
        paths: dict[str, set[str]] = defaultdict(set)
        for path in {path for record in records for path in weight_files_of(record)}:
            paths[os.path.basename(path)].add(path)
        prefixes = process.facts.get("adapter_prefix", [])
        self._adapter_prefixes = {str(fact.get("prefix") or "") for fact in prefixes}
        self._ambiguous = {name for name, found in paths.items() if len(found) > 1}

    def ledgers(self) -> list[Ledgers]:
        """Returns the ledgers in the order of the loads."""
        as_loaded = {
            span: self._without_placed(record, self._as_loaded(record))
            for span, record in self._records.items()
        }
        now = {span: self._with_paths(table, self._records[span]) for span, table in as_loaded.items()}
        unused = {span: unused_rows(table) for span, table in now.items()}
        for origins in self._origins:
            for replaced in origins.replaces:
                if replaced in now:
                    now[replaced] = unused[replaced]
            record = self._records.get(origins.span)
            if record is None:
                continue
            if origins.look:
                model = self._model_of(origins.look)
                self._note(record.span, {"changed_by": origins.changed_by})
            else:
                model = _Model(record.model or {}, record.layouts, record.rows)
            now[record.span] = joined([self._rows(record, model, origins), unused[record.span]])
        for fact in self._process.facts.get("stale", []):
            self._note(int(fact["load"]), {"changed_by": fact["changed_by"], "stale": True})
        changed = any(origins.span in self._records for origins in self._origins)
        return [
            Ledgers(
                record, now[span], as_loaded[span], self._own(record, as_loaded[span]) if changed else None
            )
            for span, record in self._records.items()
        ]

    def _own(self, record: LoadRecord, as_loaded: Table[Tensor]) -> Table[Tensor]:
        """Returns the rows of the tensors that a load put there itself, and of keys it had no use for."""
        others = {
            row.name
            for origins in self._origins
            if origins.span == record.span and not origins.look
            for row in origins.rows()
            if self._origin(row.name, row, record, origins.since_ns).load != record.span
        }
        table = self._with_paths(as_loaded, record)
        kinds, names, provenance = map(table.column, ("kind", "name", "provenance"))
        if self._goes_on(record):
            # The last of them tells of what none of them has given.
            given = {name for each in self._assigned.get(record.span, ()) for _, name in each.pairs()}
            others |= {name for name in names if name is not None} - given
        # What an __init__ loads for itself while the model is made on meta, the model's own load fills.
        unfilled = "meta" if self._is_in_init(record) else ""
        return chosen(
            table,
            [
                at
                for at, name in enumerate(names)
                if kinds[at] == "unused" or (name not in others and provenance[at] != unfilled)
            ],
        )

    def _goes_on(self, record: LoadRecord) -> bool:
        """Returns whether a load filled a part of a model, and another one went on with that."""
        return self._fills(record.span) and any(
            record.span in origins.replaces and not origins.look and self._fills(origins.span)
            for origins in self._origins
        )

    def _fills(self, span: int) -> bool:
        """Returns whether a load put tensors into a model that was there before."""
        found = self._process.spans.get(span)
        return found is not None and (found.attributes.get("what") == "state_dict" or found.name in FILLING)

    def _without_placed(self, record: LoadRecord, table: Table[Tensor]) -> Table[Tensor]:
        """Returns a ledger without keys that went nowhere in this load, and somewhere in another one."""
        if not self._fills(record.span):
            return table
        placed = {
            (assigned.path, key)
            for span, found in self._assigned.items()
            if span != record.span and self._fills(span)
            for assigned in found
            for key, _ in assigned.pairs()
        }
        return without_placed(
            table, {os.path.basename(path): path for path in weight_files_of(record)}, placed
        )

    def _is_in_init(self, record: LoadRecord) -> bool:
        """Returns whether a load went on while the model of another one was being made."""
        spans, span = self._process.spans, self._process.spans.get(record.span)
        while span is not None and span.phase != "instantiate":
            span = spans.get(span.parent) if span.parent is not None else None
        return span is not None

    def _with_paths(self, table: Table[Tensor], record: LoadRecord) -> Table[Tensor]:
        """Returns a ledger that gives the whole path where loads of this process read files of one name."""
        paths = {os.path.basename(path): path for path in weight_files_of(record)}
        named = [paths.get(file, file) if file in self._ambiguous else file for file in table.column("file")]
        return Table(Tensor, {**table.columns, "file": named})

    def _note(self, span: int, attributes: dict[str, Any]) -> None:
        if (found := self._process.spans.get(span)) is not None:
            found.attributes.update(attributes)

    def _as_loaded(self, record: LoadRecord) -> Table[Tensor]:
        origins = next((each for each in self._origins if each.span == record.span and not each.look), None)
        if record.model is None or (origins is None and record.span not in self._assigned):
            return build_tensor_ledger(record, self._headers)
        model = _Model(record.model, record.layouts, record.rows)
        return self._rows(record, model, origins, as_loaded=True)

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
        self, record: LoadRecord, model: _Model, origins: lines.Origins | None, *, as_loaded: bool = False
    ) -> Table[Tensor]:
        """Returns the rows of a model, each made by the load that its tensor is from.

        Args:
            record: The load whose model it is.
            model: The model.
            origins: Which of its tensors are not simply that load's.
            as_loaded: Whether to add the keys of that load that went nowhere, and to name files as it does.
        """
        known = {row.name: row for row in origins.rows()} if origins is not None else {}
        since = origins.since_ns if origins is not None and not origins.look else None
        places: dict[_Source, list[int]] = defaultdict(list)
        by_position = [self._origin(row.name, known.get(row.name), record, since) for row in model.rows]
        sources = [_Source(record.span)]
        sources += [_Source(record.span, assigned.path) for assigned in self._assigned.get(record.span, ())]
        places.update({source: [] for source in (sources if as_loaded else ())})
        for at, origin in enumerate(by_position):
            places[self._source_of(origin)].append(at)
        parts, order, unused = [], [], []
        given = {key for key, (path, _) in record.keys.items() if not path}
        for source, positions in places.items():
            rows = [model.rows[at]._replace(name=by_position[at].known_as) for at in positions]
            if as_loaded and source == sources[0]:
                # Placed first, and replaced by what an adapter's file has: such keys went somewhere.
                rows += [
                    row._replace(name=known[row.name].known_as)
                    for row, origin in zip(model.rows, by_position, strict=True)
                    if row.name in known and known[row.name] != origin and known[row.name].load == record.span
                ]
                # Or by what the model's own code has read.
                rows += [
                    row
                    for row, origin in zip(model.rows, by_position, strict=True)
                    if row.name not in known and self._source_of(origin).path is not None
                ]
            view = self._view(source, dataclasses.replace(model, rows=rows), record)
            table = build_tensor_ledger(view, self._headers)
            if not as_loaded:
                table = self._with_paths(table, view)
            current: dict[str, str] = {}
            for at in positions:
                current.setdefault(by_position[at].known_as, model.rows[at].name)
            names = [model.rows[at].name for at in positions]
            parts.append(renamed(first(table, len(positions)), names, current))
            order += positions
            if as_loaded and source in sources:
                unused.append(unused_rows(table, given if source.path else ()))
        rows_in_order = reordered(joined(parts), order)
        rows_in_order.columns["same_as"] = same_objects(model.rows)
        apply_changes(rows_in_order, by_position, self._adapter_prefixes)
        if known or len(parts) > 1:
            tie_one_another(rows_in_order, model.rows)
        return joined([rows_in_order, *left_out_told(unused, rows_in_order)])

    def _origin(
        self, name: str, known: lines.KnownAs | None, record: LoadRecord, since: int | None
    ) -> lines.KnownAs:
        """Returns where a tensor comes from: a load that put one there after the last look knows best."""
        if known is None:
            return lines.KnownAs(name, record.span, name, SAME)
        if since is not None and known.change in (WRITTEN, REPLACED):
            convert = record.converts.get(name)
            times = [convert.end] if convert is not None else []
            times += self._placed_exactly(record, name)
            times += [
                assigned.time_ns
                for assigned in self._assigned.get(record.span, ())
                if any(each == name for _, each in assigned.pairs())
            ]
            if any(time > since for time in times):
                return lines.KnownAs(name, record.span, name, SAME)
        return known

    def _placed_exactly(self, record: LoadRecord, name: str) -> list[int]:
        """Returns when a loader that goes by the model's own names has put a tensor there."""
        if record.span not in self._places:
            exact = record.renames_known and not record.converts
            self._places[record.span] = self._all_places(record) if exact else {}
        found = self._places[record.span].get(name)
        return [] if found is None else [found]

    def _all_places(self, record: LoadRecord) -> dict[str, int]:
        """Returns when each tensor was put there, or allocated; up to 4.49 a module takes all that it has."""
        places = {each.name: each.end for each in (*record.allocations, *record.places)}
        if record.modules and not record.places:
            prefix = str((record.model or {}).get("base_model_prefix") or "")
            stored = stored_tensors(record, self._headers)
            times = TensorTimes(record, prefix)
            keys = keys_by_name(record, stored, {row.name for row in record.rows}, prefix)
            for name, mine in keys.items():
                placed = times.of(name, mine, stored[mine[0]].path).placed
                places.update({name: placed} if placed is not None else {})
        return places

    def _source_of(self, origin: lines.KnownAs) -> _Source:
        for assigned in self._assigned.get(origin.load, ()):
            word = origin.change.partition(":")[0]
            if word in (SAME, MADE, CAST) and any(name == origin.known_as for _, name in assigned.pairs()):
                return _Source(origin.load, assigned.path)
        return _Source(origin.load, copies=origin.change == COPIED)

    def _view(self, source: _Source, model: _Model, owner: LoadRecord) -> LoadRecord:
        """Returns the record of a load as if it had returned these rows under the names that it knew."""
        record = self._records.get(source.load) or empty_record(owner)
        facts = {**model.facts, **(record.model or {}), **{each: model.facts.get(each) for each in NOW}}
        changes: dict[str, Any] = {"model": facts, "layouts": model.layouts, "rows": model.rows}
        if source.copies or owner is not record or model.facts is not record.model:
            # Written down after that load: what it saw of a tensor, it saw of the one that it returned.
            returned = self._returned.get(source.load, {})
            rows, writes = [], {}
            for row in model.rows:
                own = returned.get(row.name)
                written = 0 if own is None else own.kind & lines.WRITTEN_IN_PLACE
                kind = (row.kind & ~lines.WRITTEN_IN_PLACE) | written
                rows.append(row._replace(kind=kind))
                if own is not None and own.identity in record.writes:
                    writes[row.identity] = record.writes[own.identity]
            changes |= {"rows": rows, "writes": writes}
        files = {assigned.path for assigned in self._assigned.get(source.load, ())}
        if source.path is not None:
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
                "writes": {},
                "allocations": [],
                "reported": of_adapter(record.reported),
                "handed": {},
                "remade": {},
                "built_on": None,
                "checkpoint": {path: file for path, file in record.checkpoint.items() if path == source.path},
                "keys": {key: stored for key, stored in record.keys.items() if stored[0] == source.path},
            }
            return dataclasses.replace(record, **changes)
        changes["reported"] = self._reported(record)
        if files:
            changes |= {
                "checkpoint": {path: file for path, file in record.checkpoint.items() if path not in files},
                "keys": {key: stored for key, stored in record.keys.items() if stored[0] not in files},
            }
        return dataclasses.replace(record, **changes)

    def _reported(self, record: LoadRecord) -> dict[str, set[str]]:
        """Returns what the loader reported, without what it said of the model when it loaded the adapter.

        5.x loads an adapter as it loads a model, and calls the model's own weights missing then.
        """
        spans = self._process.spans
        # Those that name what they load; others of the phase only look whether there is an adapter.
        adapters = [
            spans[span].start
            for span, phase in record.phases.items()
            if phase == "adapter" and span in spans and "model" in spans[span].attributes
        ]
        if not adapters:
            return record.reported
        began = min(adapters)
        earlier = {name for name, convert in record.converts.items() if convert.end < began}
        return {word: names - earlier for word, names in record.reported.items()}
