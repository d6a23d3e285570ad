"""The tensor ledger in sums and in folded groups.

Both work on columns: a ledger of 100,000 rows is walked once, and no row
object is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from hftrace.schema.model import Table, Tensor

TO = "\N{EN DASH}"
"""Stands between the first and the last of a range."""
FROM_CHECKPOINT = frozenset({"checkpoint", "converted", "quantized", "offloaded", "state_dict"})
"""Provenances whose bytes came from stored weights."""


class Sort(NamedTuple):
    """What makes tensors alike for the sums."""

    kind: str
    provenance: str | None
    stored_dtype: str | None
    dtype: str | None
    device: str | None
    offload: str | None


@dataclass
class Total:
    """Sums over tensors of one sort."""

    count: int = 0
    bytes: int = 0
    stored_bytes: int = 0

    def add(self, other: Total) -> None:
        """Adds another total to this one."""
        self.count += other.count
        self.bytes += other.bytes
        self.stored_bytes += other.stored_bytes


def totals(tensors: Table[Tensor]) -> dict[Sort, Total]:
    """Returns count and bytes of the ledger by sort; every question about sums is answered from these few."""
    result: dict[tuple[Any, ...], Total] = {}
    sorts = zip(*(tensors.column(name) for name in Sort._fields), strict=True)
    for key, size, stored in zip(sorts, tensors.column("bytes"), tensors.column("stored_bytes"), strict=True):
        total = result.get(key)
        if total is None:
            total = result[key] = Total()
        total.count += 1
        total.bytes += size or 0
        total.stored_bytes += stored or 0
    return {Sort(*key): total for key, total in result.items()}


def group_totals(sums: dict[Sort, Total], field: str) -> dict[str, Total]:
    """Regroups sums by one field, largest first; an unknown value is called ``unknown``."""
    result: dict[str, Total] = {}
    for sort, total in sums.items():
        result.setdefault(getattr(sort, field) or "unknown", Total()).add(total)
    return dict(sorted(result.items(), key=lambda item: (-item[1].bytes, -item[1].count)))


def casts(sums: dict[Sort, Total]) -> dict[tuple[str, str], Total]:
    """Returns the sums of tensors whose dtype in the model is not the stored one, largest first."""
    result: dict[tuple[str, str], Total] = {}
    for sort, total in sums.items():
        if (
            sort.stored_dtype
            and sort.dtype
            and sort.stored_dtype != sort.dtype
            and sort.provenance in FROM_CHECKPOINT
        ):
            result.setdefault((sort.stored_dtype, sort.dtype), Total()).add(total)
    return dict(sorted(result.items(), key=lambda item: -item[1].bytes))


@dataclass(frozen=True)
class Group:
    """Tensors that one line stands for: a single one, or the same tensors of many layers.

    ``prefix`` is ``model.layers.`` for layers (``indexes`` is then not
    empty), the whole name otherwise. ``rows`` are rows of the ledger;
    ``members`` the ``(rest of the name, row)`` of the first layer.
    """

    prefix: str
    indexes: tuple[int, ...]
    rows: tuple[int, ...]
    members: tuple[tuple[str, int], ...]

    @property
    def label(self) -> str:
        """The name to show: the prefix and the range of its indexes."""
        return self.prefix + index_ranges(self.indexes) if self.indexes else self.prefix


def index_ranges(indexes: Sequence[int]) -> str:
    """Returns runs of indexes, first and last joined by an en dash; many scattered ones as ``0,2…30``."""
    runs: list[tuple[int, int]] = []
    for index in indexes:
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    if len(runs) > 3:
        return f"{indexes[0]},{indexes[1]}…{indexes[-1]}"
    return ",".join(str(first) if first == last else f"{first}{TO}{last}" for first, last in runs)


# Nine digits at most: a hostile name must not become a hostile integer.
_INDEX = re.compile(r"(?:^|\.)(\d{1,9})(?=\.|$)")
_ALIKE = ("bytes", "stored_dtype", "dtype", "device", "provenance", "offload")


def fold(tensors: Table[Tensor], rows: Iterable[int] | None = None) -> list[Group]:
    """Folds tensors into groups, in the order of their first row.

    The name up to its first number says the list of layers that a tensor is
    in. Layers with the same tensors (same names, sizes, dtypes, devices and
    provenance) become one group, wherever they stand.

    Args:
        tensors: The ledger.
        rows: The rows to fold; all by default.
    """
    chosen = range(len(tensors)) if rows is None else list(rows)
    names = tensors.column("name")
    keys = tensors.column("keys")
    named = [(row, names[row] or (keys[row][0] if keys[row] else "(no name)")) for row in chosen]
    return fold_names(tensors, named)


def fold_names(tensors: Table[Tensor], named: Iterable[tuple[int, str]]) -> list[Group]:
    """Like :func:`fold`, for names given by the caller (parts of names below a layer)."""
    sizes, stored, dtypes, devices, provenances, offloads = (tensors.column(name) for name in _ALIKE)
    return fold_alike(
        named,
        lambda row: (
            sizes[row],
            stored[row],
            dtypes[row],
            devices[row],
            provenances[row],
            offloads[row],
        ),
    )


def fold_alike(named: Iterable[tuple[int, str]], alike: Callable[[int], Any]) -> list[Group]:
    """Like :func:`fold`, for rows and names given by the caller, and what has to be equal for layers to fold.

    Args:
        named: Row and name of each tensor.
        alike: Called with a row; returns what makes it the same as that of another layer.
    """
    layers: dict[str, dict[int, list[tuple[str, Any, int]]]] = {}
    groups: list[Group] = []
    search = _INDEX.search
    for row, name in named:
        found = search(name)
        if found is None:
            groups.append(Group(name, (), (row,), ((name, row),)))
            continue
        by_index = layers.setdefault(name[: found.start(1)], {})
        by_index.setdefault(int(found.group(1)), []).append((name[found.end(1) + 1 :], alike(row), row))
    for prefix, by_index in layers.items():
        by_signature: dict[Any, list[int]] = {}
        for index in sorted(by_index):
            layer = by_index[index]
            layer.sort(key=itemgetter(0))
            signature = tuple([(suffix, like) for suffix, like, _ in layer])
            by_signature.setdefault(signature, []).append(index)
        for indexes in by_signature.values():
            layer_rows = [row for index in indexes for _, _, row in by_index[index]]
            first = sorted(by_index[indexes[0]], key=itemgetter(2))
            groups.append(
                Group(prefix, tuple(indexes), tuple(layer_rows), tuple((name, row) for name, _, row in first))
            )
    groups.sort(key=lambda group: min(group.rows))
    return groups
