"""The tensor ledger in batches, in sums and in folded groups.

All work on columns: a ledger of 100,000 rows is walked as seldom as can be,
and no row object is built.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from hftrace.analysis.ledger.dtypes import CAST_DTYPES
from hftrace.analysis.once import once
from hftrace.schema.model import Table, Tensor
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import GGUF_QUANTISATIONS

Cell = TypeVar("Cell")
TO = "\N{EN DASH}"
"""Stands between the first and the last of a range."""
FROM_CHECKPOINT = frozenset({"checkpoint", "converted", "quantized", "offloaded", "state_dict"})
"""Provenances whose bytes came from stored weights."""


class TensorClass(NamedTuple):
    """What makes tensors alike for the sums."""

    kind: str
    provenance: str | None
    stored_dtype: str | None
    dtype: str | None
    device: str | None
    offload: str | None
    evidence: str | None


@dataclass
class Total:
    """Sums over tensors of one class."""

    count: int = 0
    bytes: int = 0
    stored_bytes: int = 0

    def add(self, other: "Total") -> None:
        """Adds another total to this one."""
        self.count += other.count
        self.bytes += other.bytes
        self.stored_bytes += other.stored_bytes

    def subtract(self, other: "Total") -> None:
        """Takes another total out of this one."""
        self.count -= other.count
        self.bytes -= other.bytes
        self.stored_bytes -= other.stored_bytes


class Batch(NamedTuple):
    """Tensors of one class that one thread read out of one file inside one span.

    There are few of them, however many tensors a ledger has: what has to be
    decided is decided once a batch, and only sizes and times are left to be summed.
    """

    tensor_class: TensorClass
    rank: int
    file: str | None
    span: int | None
    thread: int | None
    read: bool
    """Whether the start of the read is known."""
    asked: bool
    """Whether it was handed out by something that may have read it before: when it was asked for is known."""
    rows: list[int]
    """Rows of the ledger, in order."""
    total: Total


@once
def tensor_batches(trace: Trace) -> list[Batch]:
    """Returns the tensor ledger by all that few tensors differ in, in the order of the first rows."""
    tensors = trace.tensors
    read = [start is not None for start in tensors.column("read_start_ns")]
    asked = [time is not None for time in tensors.column("asked_ns")]
    columns = [tensors.column(name) for name in (*TensorClass._fields, "rank", "file", "span", "thread")]
    found: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(*columns, read, asked, strict=True)):
        found[key].append(row)
    return [
        Batch(TensorClass(*fields), rank, file, span, thread, known, later, rows, total_of_rows(trace, rows))
        for (*fields, rank, file, span, thread, known, later), rows in found.items()
    ]


def total_of_rows(trace: Trace, rows: Sequence[int]) -> Total:
    """Returns count and bytes of rows of the ledger."""
    sizes, stored = (take(trace.tensors.column(name), rows) for name in ("bytes", "stored_bytes"))
    return Total(len(rows), sum(filter(None, sizes)), sum(filter(None, stored)))


def batches_of(trace: Trace, rows: Sequence[int]) -> Iterator[Batch]:
    """Yields the batches of a part of the tensor ledger, such as that of one load of several."""
    if len(rows) == len(trace.tensors):
        yield from tensor_batches(trace)
        return
    own = frozenset(rows)
    for batch in tensor_batches(trace):
        mine = [row for row in batch.rows if row in own]
        if mine:
            yield batch._replace(rows=mine, total=total_of_rows(trace, mine))


def take(column: Sequence[Cell], rows: Iterable[int]) -> list[Cell]:
    """Returns the cells of a column in the rows given."""
    return list(map(column.__getitem__, rows))


@once
def tensor_sums(trace: Trace) -> dict[TensorClass, Total]:
    """Returns count and bytes of the ledger by class; all questions about sums are answered from these."""
    result: dict[TensorClass, Total] = {}
    for batch in tensor_batches(trace):
        result.setdefault(batch.tensor_class, Total()).add(batch.total)
    return result


def group_totals(sums: dict[TensorClass, Total], field: str) -> dict[str, Total]:
    """Regroups sums by one field, largest first; an unknown value is called ``unknown``."""
    result: dict[str, Total] = {}
    for tensor_class, total in sums.items():
        result.setdefault(getattr(tensor_class, field) or "unknown", Total()).add(total)
    return dict(sorted(result.items(), key=lambda item: (-item[1].bytes, -item[1].count)))


AS_STORED = frozenset({"checkpoint", "state_dict"})
"""Provenances of values that are the stored ones, each by itself."""


def is_cast(provenance: str | None, stored_dtype: str | None, dtype: str | None) -> bool:
    """Returns whether the loader cast a tensor: the same values in another format.

    Codes that were made of numbers, or numbers that were made of codes and
    their scales, are no cast: a value there means nothing by itself.

    Args:
        provenance: Where the tensor came from.
        stored_dtype: In the file.
        dtype: In the model.
    """
    if not stored_dtype or not dtype or stored_dtype == dtype or provenance not in FROM_CHECKPOINT:
        return False
    if stored_dtype in GGUF_QUANTISATIONS:
        return False  # the blocks of a file, which stay blocks or become numbers
    return provenance in AS_STORED or (
        provenance != "quantized" and stored_dtype in CAST_DTYPES and dtype in CAST_DTYPES
    )


def casts(sums: dict[TensorClass, Total]) -> dict[tuple[str, str], Total]:
    """Returns the sums of tensors that the loader cast, by both dtypes, largest first."""
    result: dict[tuple[str, str], Total] = {}
    for tensor_class, total in sums.items():
        stored_dtype, dtype = tensor_class.stored_dtype, tensor_class.dtype
        if stored_dtype and dtype and is_cast(tensor_class.provenance, stored_dtype, dtype):
            result.setdefault((stored_dtype, dtype), Total()).add(total)
    return dict(sorted(result.items(), key=lambda item: -item[1].bytes))


class Group(NamedTuple):
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
    named = take(tensors.column("name"), chosen)
    if None in named:
        keys = tensors.column("keys")
        named = [
            name or (keys[row][0] if keys[row] else "(no name)")
            for name, row in zip(named, chosen, strict=True)
        ]
    return fold_names(tensors, chosen, named)


def fold_names(tensors: Table[Tensor], rows: Sequence[int], names: Sequence[str]) -> list[Group]:
    """Like :func:`fold`, for names given by the caller (parts of names below a layer)."""
    columns = [column for name in _ALIKE if (column := _telling(tensors.column(name), rows)) is not None]
    if len(columns) < 2:
        return fold_alike(rows, names, columns[0] if columns else [None] * len(rows))
    numbers: dict[tuple[Any, ...], int] = {}
    alike = [numbers.setdefault(key, len(numbers)) for key in zip(*columns, strict=True)]
    return fold_alike(rows, names, alike)


def _telling(column: Sequence[Any], rows: Sequence[int]) -> list[Any] | None:
    """Returns the cells of a column in the rows given; None where they are all the same."""
    cells = take(column, rows)
    return cells if cells and cells.count(cells[0]) < len(cells) else None


def fold_alike(rows: Sequence[int], names: Sequence[str], alike: Sequence[Any]) -> list[Group]:
    """Like :func:`fold`, with all that it depends on given by the caller.

    Args:
        rows: What to call each tensor in the groups.
        names: Their names.
        alike: For each of them, what has to be equal to that of the same one in another layer.
    """
    groups: list[Group] = []
    layers: dict[str, list[int]] = {}
    layer: list[int] | None = None
    head = ""
    for at, name in enumerate(names):
        # Names mostly come layer by layer: only the first one of each is searched.
        if layer is None or not name.startswith(head):
            found = _INDEX.search(name)
            if found is None:
                groups.append(Group(name, (), (rows[at],), ((name, rows[at]),)))
                continue
            head = name[: found.end()] + "."
            layer = layers.setdefault(head, [])
        layer.append(at)
    same: dict[tuple[str, tuple[str, ...], tuple[Any, ...]], list[tuple[int, list[int]]]] = {}
    for head, inside in layers.items():
        inside.sort(key=names.__getitem__)
        suffixes = tuple([names[at][len(head) :] for at in inside])
        index = head[:-1].rpartition(".")[2]
        signature = (head[: -len(index) - 1], suffixes, tuple(take(alike, inside)))
        same.setdefault(signature, []).append((int(index), inside))
    for (prefix, suffixes, _), parts in same.items():
        parts.sort()
        first = take(rows, parts[0][1])
        groups.append(
            Group(
                prefix,
                tuple(index for index, _ in parts),
                tuple(rows[at] for _, inside in parts for at in inside),
                tuple(sorted(zip(suffixes, first, strict=True), key=itemgetter(1))),
            )
        )
    groups.sort(key=lambda group: min(group.rows))
    return groups
