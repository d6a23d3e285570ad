"""The ledgers of modules that the program named: each tensor with the row of the load that it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, NamedTuple

from hftrace.replay.changes import apply_changes
from hftrace.replay.identity import Ledgers
from hftrace.replay.provenance import KIND_PARAMETER
from hftrace.replay.reader import Process
from hftrace.replay.returned import rows_by_load_name
from hftrace.replay.structures import structure_facts
from hftrace.replay.tensors import requires_grad
from hftrace.replay.tied import same_objects
from hftrace.schema import lines
from hftrace.schema.lines import MARKS
from hftrace.schema.model import Table, Tensor

LOADED = (
    "provenance", "evidence", "keys", "file", "files", "offset", "offload", "stored_shape", "stored_dtype",
    "stored_bytes", "read_start_ns", "read_end_ns", "placed_ns", "thread", "span", "convert_start_ns",
    "convert_end_ns", "operations", "asked_ns",
)  # fmt: skip
"""Columns that say where a tensor's values came from; the others say what it is now."""
NOT_LOADED = {"provenance": "unknown", "evidence": "own", "keys": []}


class Watched(NamedTuple):
    """A module that the program named."""

    facts: dict[str, Any]
    """``name``, ``structure``, ``class`` and ``time_ns``, a raw clock reading."""
    tensors: Table[Tensor]
    """Its tensors; ``load`` is a number of the process's own, as times are its own."""


def watched_ledgers(process: Process, ledgers: list[Ledgers]) -> list[Watched]:
    """Returns the ledger of each module that was named, in the order of time.

    Args:
        process: What the process wrote.
        ledgers: Those of its loads.
    """
    named = process.lines_of(lines.Watched)
    if not named:
        return []
    origins = process.lines_of(lines.Origins)
    loads = {ledger.record.span: _Loaded(ledger, origins) for ledger in ledgers}
    prefixes = {str(fact.get("prefix") or "") for fact in process.facts.get("adapter_prefix", [])}
    return [_watched(process, line, loads, prefixes) for line in named]


class _Loaded:
    """The rows of one load, by what the load called the tensors."""

    def __init__(self, ledger: Ledgers, origins: list[lines.Origins]) -> None:
        self.root = ledger.record.root
        self._table = ledger.as_loaded
        rows = {
            name: row
            for row, (name, kind) in enumerate(
                zip(self._table.column("name"), self._table.column("kind"), strict=True)
            )
            if kind != "unused" and name is not None
        }
        names = rows_by_load_name(ledger.record, origins)
        self._rows = {known: rows[row.name] for known, row in names.items() if row.name in rows}
        self._by_name = rows

    def facts(self, name: str) -> dict[str, Any] | None:
        """Returns where the values of a tensor came from; those of a tied one where the one has them from."""
        row = self._rows.get(name)
        if row is None:
            return None
        owner = self._table.column("tied_to")[row]
        if owner is not None and not self._table.column("keys")[row] and owner in self._by_name:
            row = self._by_name[owner]
        return {column: self._table.column(column)[row] for column in LOADED}


def _watched(
    process: Process, line: lines.Watched, loads: dict[int, _Loaded], adapter_prefixes: Collection[str]
) -> Watched:
    layouts: list[lines.Layout] = []
    for described in process.lines_of(lines.Layouts):
        if described.span == line.look:
            layouts += described.layouts
    rows: list[lines.ModelTensor] = []
    for tensors in process.lines_of(lines.Tensors):
        if tensors.span == line.look:
            rows += tensors.rows()
    known = {origin.name: origin for origin in line.rows()}
    origins = [known.get(row.name) or lines.KnownAs(row.name, 0, row.name, "own") for row in rows]
    columns: dict[str, list[Any]] = {field.name: [] for field in dataclasses.fields(Tensor)}
    for row, origin in zip(rows, origins, strict=True):
        load = loads.get(origin.load)
        came = load.facts(origin.known_as) if load is not None else None
        layout = layouts[row.layout]
        values = {
            **(NOT_LOADED if came is None else came),
            "load": load.root if load is not None and came is not None else None,
            "name": row.name,
            "kind": "parameter" if row.kind & ~MARKS == KIND_PARAMETER else "buffer",
            "shape": layout.shape,
            "global_shape": layout.global_shape,
            "dtype": layout.dtype,
            "bytes": layout.bytes,
            "device": layout.device,
            "requires_grad": requires_grad(row.kind),
            "rank": process.rank,
        }
        if not (layout.offloaded and layout.device == "meta"):
            values["offload"] = None
        for name, column in columns.items():
            column.append(list(values["keys"]) if name == "keys" else values.get(name))
    columns["same_as"] = same_objects(rows)
    table = Table(Tensor, columns)
    apply_changes(table, origins, adapter_prefixes)
    facts: dict[str, Any] = {"name": line.name, "time_ns": line.time_ns}
    for model in process.lines_of(lines.Model):
        if model.span == line.look:
            facts["class"] = model.facts.get("class")
    for structure in process.lines_of(lines.Structure):
        if structure.span == line.look:
            facts["structure"] = structure_facts(structure)
    return Watched(facts, table)
