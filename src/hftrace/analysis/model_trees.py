"""The models of a trace: each as the tree of its modules, and the load that left it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hftrace.analysis.ledger.modules import ModuleTree, module_tree
from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadName, has_several, load_names
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


@once
def model_trees(trace: Trace) -> list[ModelTree]:
    """Returns the models of a trace, those of each load in their order."""
    names = load_names(trace)
    found = []
    for at, part in enumerate(load_traces(trace)):
        found += _trees(part, range(len(part.tensors)), names[at] if at < len(names) else None)
    if has_several(trace):
        found += _trees(trace, unplaced_rows(trace), None)
    return found


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
