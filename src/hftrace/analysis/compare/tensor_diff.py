"""Two tensor ledgers by name: what only one has, and what is not the same in both, folded over layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hftrace.analysis.ledger.tensors import fold_alike
from hftrace.schema.model import Table, Tensor

FIELDS = ("shape", "dtype", "device", "offload", "provenance", "tied_to")
"""What is compared; ``bytes`` as well, where dtype and shape do not explain it."""
_ABSENT_MEANS_NONE = frozenset({"offload", "tied_to"})
"""Fields in which nothing is a value; in all others it means that the trace does not say."""
Change: TypeAlias = tuple[tuple[str, Any, Any], ...]
"""``(field, before, after)`` of each field that changed."""


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that differ in the same way, or that only one model has."""

    label: str
    """``model.layers.0-31`` with an en dash, with the rest of the name where there is one tensor a layer; or
    the name of the only one."""
    names: list[str]
    members: list[str]
    """What follows the number in the names of each layer's tensors; empty for a single one."""
    change: Change
    """Empty where only one model has them."""
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class TensorDiff:
    """What differs between the tensors of two models. Keys that went nowhere are not among them."""

    same: int
    """How many are the same in both."""
    only_before: list[TensorGroup]
    only_after: list[TensorGroup]
    changed: list[TensorGroup]

    @property
    def empty(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_before or self.only_after or self.changed)


def tensor_diff(
    before: Table[Tensor],
    after: Table[Tensor],
    loads_before: Mapping[int, str] | None = None,
    loads_after: Mapping[int, str] | None = None,
) -> TensorDiff:
    """Compares two ledgers by the names of their tensors, and by rank where there are several.

    Args:
        before: The one.
        after: The other.
        loads_before: What the loads of the one are called, by their spans, where a name alone is not enough:
            two models of a session may have tensors of one name.
        loads_after: The same of the other.
    """
    first, second = _by_name(before, loads_before or {}), _by_name(after, loads_after or {})
    columns_before = {name: before.column(name) for name in (*FIELDS, "bytes")}
    columns_after = {name: after.column(name) for name in (*FIELDS, "bytes")}
    same = 0
    changes: dict[Change, list[tuple[int, int, str]]] = {}
    for name, row in first.items():
        other = second.get(name)
        if other is None:
            continue
        change = _change(columns_before, row, columns_after, other)
        if change:
            changes.setdefault(change, []).append((row, other, name))
        else:
            same += 1
    changed = []
    for change, rows in changes.items():
        changed += _folded(change, rows, columns_before["bytes"], columns_after["bytes"])
    changed.sort(key=lambda group: -max(group.bytes_before, group.bytes_after))
    gone = [(row, -1, name) for name, row in first.items() if name not in second]
    new = [(-1, row, name) for name, row in second.items() if name not in first]
    return TensorDiff(
        same,
        _folded((), gone, columns_before["bytes"], ()),
        _folded((), new, (), columns_after["bytes"]),
        changed,
    )


def _by_name(tensors: Table[Tensor], loads: Mapping[int, str]) -> dict[str, int]:
    several = len(set(tensors.column("rank"))) > 1
    rows: dict[str, int] = {}
    columns = (tensors.column(name) for name in ("name", "kind", "rank", "load"))
    for row, (name, kind, rank, load) in enumerate(zip(*columns, strict=True)):
        if name is not None and kind != "unused":
            called = f"{loads[load]}: {name}" if load in loads else name
            rows.setdefault(f"rank {rank}: {called}" if several else called, row)
    return rows


def _change(before: dict[str, list[Any]], row: int, after: dict[str, list[Any]], other: int) -> Change:
    found = []
    for field in FIELDS:
        left, right = before[field][row], after[field][other]
        if left == right or (field not in _ABSENT_MEANS_NONE and (left is None or right is None)):
            continue
        if field == "shape":
            left, right = tuple(left), tuple(right)
        found.append((field, left, right))
    left, right = before["bytes"][row], after["bytes"][other]
    if left != right and None not in (left, right) and not {"shape", "dtype"} & {name for name, *_ in found}:
        found.append(("bytes", left, right))
    return tuple(found)


def _folded(
    change: Change, rows: list[tuple[int, int, str]], sizes_before: Any, sizes_after: Any
) -> list[TensorGroup]:
    result = []
    # What is tied to another layer's tensor, or has another shape, differs by its own values: those are in
    # ``change`` already, so that all that is left to fold by is the name.
    for group in fold_alike(range(len(rows)), [name for _, _, name in rows], [None] * len(rows)):
        mine = [rows[number] for number in group.rows]
        members = [name for name, _ in group.members] if group.indexes else []
        only = f".{members[0]}" if len(members) == 1 and members[0] else ""
        result.append(
            TensorGroup(
                group.label + only,
                [name for _, _, name in mine],
                members,
                change,
                sum(sizes_before[row] or 0 for row, _, _ in mine if row >= 0),
                sum(sizes_after[other] or 0 for _, other, _ in mine if other >= 0),
            )
        )
    return result


def _group_facts(group: TensorGroup) -> dict[str, Any]:
    return {
        "label": group.label,
        "count": len(group.names),
        "change": {field: [before, after] for field, before, after in group.change},
        "bytes_before": group.bytes_before,
        "bytes_after": group.bytes_after,
        "names": group.names,
    }


def facts(diff: TensorDiff) -> dict[str, Any]:
    """Returns a diff as plain JSON values; bytes, and every name."""
    return {
        "same": diff.same,
        "only_baseline": [_group_facts(group) for group in diff.only_before],
        "only_variant": [_group_facts(group) for group in diff.only_after],
        "changed": [_group_facts(group) for group in diff.changed],
    }


def count_changes(diff: TensorDiff) -> Counter[str]:
    """Returns how many tensors changed by field, and how many only one has, for one line."""
    counts: Counter[str] = Counter()
    for group in diff.changed:
        for field, *_ in group.change:
            counts[field] += len(group.names)
    counts["only_baseline"] = sum(len(group.names) for group in diff.only_before)
    counts["only_variant"] = sum(len(group.names) for group in diff.only_after)
    return +counts
