"""The modules of each model of a trace, with what the ledger says of the tensors in them.

A trace has the classes of a model's modules (:mod:`hftrace.schema.structure`)
and the rows of its tensors, whose names lead through them. What a module holds
is what its own ``parameters()`` and ``buffers()`` give: each object once, also
where it stands under several names.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hftrace.schema.model import Table, Tensor
from hftrace.schema.structure import Structure, modules_of


class Sort(NamedTuple):
    """What tensors are counted apart by."""

    kind: str
    dtype: str | None
    place: str | None
    """The device; of a tensor that a hook brings in, where it is until then."""
    provenance: str | None
    requires_grad: bool | None


@dataclass(slots=True)
class Amount:
    """Tensors of one sort in a module."""

    tensors: int = 0
    """Names, those of tensors that stand there under another one already included."""
    elements: int = 0
    bytes: int = 0

    def add(self, other: Amount) -> None:
        """Adds another amount."""
        self.tensors += other.tensors
        self.elements += other.elements
        self.bytes += other.bytes


@dataclass(slots=True)
class Module:
    """One module of a model."""

    path: str
    """Its name in the model; empty for the model itself."""
    class_name: str | None
    """None where the trace does not say it."""
    parent: int
    """The position of the module around it; -1 for the model itself."""
    children: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """Rows of the ledger: the tensors that are its own, and not those of its children."""
    amounts: dict[Sort, Amount] = field(default_factory=dict)
    """Of it and all that is in it."""
    unknown: int = 0
    """Tensors in it whose shape is not known: its elements are more than is counted."""
    alike: int = 0
    """Equal for modules that differ in nothing but their names."""

    @property
    def name(self) -> str:
        """What the module around it calls it."""
        return self.path.rpartition(".")[2]

    def elements(self, kind: str = "parameter", *, trained: bool | None = None) -> int | None:
        """Returns how many elements its parameters, or its buffers, have; None where that is not known.

        Args:
            kind: ``parameter`` or ``buffer``.
            trained: Only of those that require a gradient, or of those that do not.
        """
        if self.unknown:
            return None
        found = 0
        for sort, amount in self.amounts.items():
            if sort.kind != kind:
                continue
            if trained is not None and sort.requires_grad is None:
                return None
            if trained is None or sort.requires_grad is trained:
                found += amount.elements
        return found

    def bytes(self, kind: str | None = None) -> int:
        """Returns the bytes of its parameters, its buffers, or both."""
        return sum(amount.bytes for sort, amount in self.amounts.items() if kind in (None, sort.kind))

    def by(self, name: str) -> dict[str, Amount]:
        """Returns its tensors by a field of :class:`Sort`, most bytes first; ``unknown`` where it is None."""
        found: dict[str, Amount] = {}
        for sort, amount in self.amounts.items():
            found.setdefault(str(getattr(sort, name) or "unknown"), Amount()).add(amount)
        return dict(sorted(found.items(), key=lambda item: (-item[1].bytes, -item[1].tensors)))

    @property
    def trained(self) -> str | None:
        """Whether its parameters are trained: ``yes``, ``no``, ``partly``; None where that is not known."""
        found = {sort.requires_grad for sort in self.amounts if sort.kind == "parameter"}
        if not found or None in found:
            return None
        return "partly" if len(found) > 1 else "yes" if True in found else "no"


@dataclass(frozen=True)
class ModuleTree:
    """The modules of one model."""

    modules: Sequence[Module]
    """Each before those in it; the first is the model itself."""
    ledger: Table[Tensor]
    """The rows that its modules name."""
    has_classes: bool
    """Whether the trace has the classes of its modules."""
    footprint_bytes: int | None
    """What ``get_memory_footprint()`` of it says."""

    @property
    def root(self) -> Module:
        """The model itself."""
        return self.modules[0]

    def row_count(self) -> int:
        """Returns how many tensors it has, each name counted."""
        return sum(amount.tensors for amount in self.root.amounts.values())

    def object_count(self) -> int:
        """Returns how many tensors it has, those with several names counted once."""
        rows = [row for module in self.modules for row in module.rows]
        same = _same(self.ledger, rows)
        return sum(same[row] is None for row in rows)


def module_tree(ledger: Table[Tensor], rows: Sequence[int], structure: Structure | None) -> ModuleTree:
    """Returns the modules of one model.

    Args:
        ledger: The ledger that has its tensors.
        rows: Their rows, in the model's order.
        structure: Its modules; None where the trace does not have them.
    """
    modules, kinds = _modules(ledger, rows, structure)
    for position, module in enumerate(modules):
        if module.parent >= 0:
            modules[module.parent].children.append(position)
    _count(ledger, rows, modules)
    _mark_alike(ledger, modules, kinds)
    footprint = structure.footprint_bytes if structure is not None else None
    return ModuleTree(modules, ledger, structure is not None, footprint)


def _modules(
    ledger: Table[Tensor], rows: Sequence[int], structure: Structure | None
) -> tuple[list[Module], list[int]]:
    """Returns the modules of a model with their own rows, and the kind of each; -1 where it has none."""
    modules: list[Module] = []
    kinds: list[int] = []
    if structure is None:
        modules.append(Module("", None, -1))
        kinds.append(-1)
    else:
        for path, kind, parent in modules_of(structure):
            modules.append(Module(path, structure.kinds[kind].class_name, parent))
            kinds.append(kind)
    place = {module.path: position for position, module in enumerate(modules)}
    names = ledger.column("name")
    missing: dict[str, list[int]] = {}
    for row in rows:
        path = names[row].rpartition(".")[0]
        if path in place:
            modules[place[path]].rows.append(row)
        else:
            missing.setdefault(path, []).append(row)
    if missing:
        _add(modules, kinds, place, missing)
    return modules, kinds


def _add(
    modules: list[Module], kinds: list[int], place: dict[str, int], missing: Mapping[str, list[int]]
) -> None:
    """Adds modules that only the names of tensors tell of, at their places in the order."""
    below: dict[str, dict[str, None]] = defaultdict(dict)
    for path in missing:
        while path not in place and (around := path.rpartition(".")[0]) != path:
            below[around][path] = None
            path = around
    added = {path for paths in below.values() for path in paths}
    before, numbers = list(modules), list(kinds)
    children: dict[str, list[str]] = defaultdict(list)
    for module in before[1:]:
        children[before[module.parent].path].append(module.path)
    for around, paths in below.items():
        children[around] += paths
    modules.clear()
    kinds.clear()
    pending: list[tuple[str, int]] = [("", -1)]
    while pending:
        path, parent = pending.pop()
        if path in added:
            modules.append(Module(path, None, parent, rows=missing.get(path, [])))
            kinds.append(-1)
        else:
            known = before[place[path]]
            known.parent = parent
            modules.append(known)
            kinds.append(numbers[place[path]])
        position = len(modules) - 1
        pending.extend((child, position) for child in reversed(children[path]))


def _count(ledger: Table[Tensor], rows: Sequence[int], modules: list[Module]) -> None:
    """Counts what each module holds: its own tensors and those below, each object once."""
    where: dict[int, int] = {}
    for position, module in enumerate(modules):
        for row in module.rows:
            where[row] = position
            sort, amount = _amount(ledger, row)
            module.unknown += amount is None
            module.amounts.setdefault(sort, Amount()).add(amount or Amount(1))
    for module in reversed(modules):
        if module.parent >= 0:
            around = modules[module.parent]
            around.unknown += module.unknown
            for sort, amount in module.amounts.items():
                around.amounts.setdefault(sort, Amount()).add(amount)
    names, same = ledger.column("name"), _same(ledger, rows)
    shared = {same[row] for row in rows if same[row] is not None}
    have: dict[str, set[int]] = {}
    """The modules that have a tensor already, by its first name."""
    for row in rows if shared else ():
        first = same[row] or names[row]
        if first not in shared:
            continue
        having = have.setdefault(first, set())
        sort, amount = _amount(ledger, row)
        position = where[row]
        while position >= 0:
            if position in having and amount is not None:
                counted = modules[position].amounts[sort]
                counted.elements -= amount.elements
                counted.bytes -= amount.bytes
            having.add(position)
            position = modules[position].parent


def _same(ledger: Table[Tensor], rows: Sequence[int]) -> list[str | None]:
    """Returns the column that says which tensors are others again."""
    told = any(ledger.column("model")[row] is not None for row in rows[:1])
    return ledger.column("same_as" if told else "tied_to")  # an older trace says what is tied


def _amount(ledger: Table[Tensor], row: int) -> tuple[Sort, Amount | None]:
    """Returns what a tensor adds to the modules that have it; no amount where its shape is not known."""
    columns = ledger.columns
    shape = columns["global_shape"][row] or columns["shape"][row]
    sort = Sort(
        columns["kind"][row],
        columns["dtype"][row],
        columns["offload"][row] or columns["device"][row],
        columns["provenance"][row],
        columns["requires_grad"][row],
    )
    return sort, None if shape is None else Amount(1, math.prod(shape), columns["bytes"][row] or 0)


ALIKE = ("bytes", "stored_dtype", "dtype", "device", "provenance", "offload", "requires_grad", "shape")
"""What tensors have to have in common for the modules to be alike that have them."""


def _mark_alike(ledger: Table[Tensor], modules: list[Module], kinds: list[int]) -> None:
    """Gives equal numbers to modules that differ in nothing but their names."""
    names = ledger.column("name")
    columns = [ledger.column(name) for name in ALIKE]
    columns.append([each is None for each in ledger.column("same_as")])
    numbers: dict[Any, int] = {}
    for position in range(len(modules) - 1, -1, -1):
        module = modules[position]
        own = tuple(
            (names[row].rpartition(".")[2], *(str(column[row]) for column in columns)) for row in module.rows
        )
        below = tuple((modules[child].name, modules[child].alike) for child in module.children)
        module.alike = numbers.setdefault((kinds[position], own, below), len(numbers))
