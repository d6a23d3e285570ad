"""The models of a trace: each as the tree of its modules, and the load that left it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hftrace.analysis.ledger.modules import Module, ModuleTree, module_tree
from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadName, has_several, load_groups, load_names
from hftrace.analysis.time.loads import load_traces, unplaced_rows
from hftrace.schema.structure import structure_of
from hftrace.schema.trace import Trace


@dataclass(frozen=True)
class ModelTree(ModuleTree):
    """One model of a trace."""

    load: LoadName | None = None
    """The load that left it; None where it is not known."""
    rank: int = 0
    part: str | None = None
    """What the loader of a part of a load is called; None for the model of the load itself."""
    watched: int | None = None
    """The number of a module that the program named, and that no load returned."""
    name: str | None = None
    """What the program calls that."""
    loads: Mapping[int, int] = dataclasses.field(default_factory=dict)
    """The number of each load that tensors of it came from, by the load's span."""

    def loads_of(self, module: Module) -> list[str]:
        """Returns the numbers of the loads that the tensors of a module came from; ``own`` for none.

        Of a model that a load returned it is empty: all are in that load's ledger.
        """
        if self.watched is None:
            return []
        found: set[int | None] = set()
        pending = [module]
        column = self.ledger.column("load")
        while pending:
            each = pending.pop()
            found.update(self.loads.get(column[row]) for row in each.rows)
            pending += [self.modules[child] for child in each.children]
        numbers = sorted(number for number in found if number is not None)
        return [*map(str, numbers), *([OWN] if None in found else [])]


OWN = "own"
"""Where a tensor came from that no load put there."""


@once
def model_trees(trace: Trace) -> list[ModelTree]:
    """Returns the models of a trace, those of each load in their order."""
    names = load_names(trace)
    found = []
    for at, part in enumerate(load_traces(trace)):
        found += _trees(part, range(len(part.tensors)), names[at] if at < len(names) else None)
    if has_several(trace):
        found += _trees(trace, unplaced_rows(trace), None)
    return found + list(_named(trace))


def _named(trace: Trace) -> Iterator[ModelTree]:
    """Yields the modules that the program named."""
    numbers = {
        trace.spans.column("id")[row]: number
        for number, rows in enumerate(load_groups(trace), 1)
        for row in rows
    }
    rows: dict[int | None, list[int]] = defaultdict(list)
    for row, number in enumerate(trace.watched.column("model")):
        rows[number].append(row)
    told = trace.header.get("watched")
    facts = {each.get("number"): each for each in told or () if isinstance(each, Mapping)}
    for number, own in rows.items():
        noted = facts.get(number) or {}
        tree = module_tree(trace.watched, own, structure_of(noted.get("structure")))
        if tree.root.class_name is None and isinstance(noted.get("class"), str):
            tree.root.class_name = noted["class"]
        name = noted.get("name")
        yield ModelTree(
            **vars(tree),
            rank=trace.watched.column("rank")[own[0]],
            watched=number,
            name=name if isinstance(name, str) and name else None,
            loads=numbers,
        )


def _trees(trace: Trace, rows: Iterable[int], load: LoadName | None) -> list[ModelTree]:
    """Returns the models that rows of a trace's ledger are of."""
    ledger = trace.tensors
    columns = [ledger.column(name) for name in ("rank", "model", "load", "kind", "name", "device")]
    models: dict[tuple[int, int | None, int | None], list[int]] = defaultdict(list)
    for row in rows:
        rank, model, owner, kind, name, device = (column[row] for column in columns)
        # A load that did not return has keys that were placed, and no model.
        if kind != "unused" and name is not None and device is not None:
            models[rank, model, owner].append(row)
    if not models:
        return []
    spans = trace.spans
    attributes = dict(zip(spans.column("id"), spans.column("attributes"), strict=True))
    called = dict(zip(spans.column("id"), spans.column("name"), strict=True))
    trees = []
    for (rank, model, owner), own in models.items():
        span = owner if model is None else model
        if span is None and load is not None:
            span = load.span
        noted: Mapping[str, Any] = attributes.get(span) or {} if span is not None else {}
        structure = structure_of(noted.get("structure_now")) or structure_of(noted.get("structure"))
        part = called.get(model) if model is not None and owner not in (None, model) else None
        trees.append(ModelTree(**vars(module_tree(ledger, own, structure)), load=load, rank=rank, part=part))
    return trees
