"""What the values of a trace have to be, so that nobody who reads one has to ask again.

Columns hold what the type hints of their rows say, within the bounds that their names have; a trace in
which one does not is refused, with the row. Facts are another matter: :mod:`hftrace.schema.facts`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import sys
import typing
from collections.abc import Iterable, Sequence
from types import NoneType, SimpleNamespace, UnionType
from typing import Any

from hftrace.errors import TraceError
from hftrace.schema import model
from hftrace.schema.columns import shown, witnesses
from hftrace.schema.model import File, Import, Request, Sample, Span, Tensor

TABLES: dict[str, type[Any]] = {
    "spans": Span,
    "tensors": Tensor,
    "files": File,
    "requests": Request,
    "samples": Sample,
    "at_return": Tensor,
    "watched": Tensor,
    "imports": Import,
}
"""The tables of a trace, and what a row of each is."""
MAX_AMOUNT = 2**62
"""No time in ns (146 years) and no number of bytes is as large; sums and products of larger ones overflow."""
MAX_INTEGER = 2**64
"""The same of any other integer: an address, or the number of a thread."""
MAX_DEPTH = 32
"""How deep a value lies in others, at most."""
ROUNDING = 1e-6
"""By how much a share may be more than all."""


class Bounds(typing.NamedTuple):
    """Between which two numbers those of a column lie, and what they are."""

    low: float
    high: float
    what: str


_SHARE = Bounds(0, 1 + ROUNDING, "share")
_BYTES = Bounds(0, MAX_AMOUNT, "number of bytes")
_TIME = Bounds(0, MAX_AMOUNT, "time")
_EARLIER = Bounds(-MAX_AMOUNT, MAX_AMOUNT, "time")
_REAL = Bounds(-sys.float_info.max, sys.float_info.max, "number")
_NUMBER = Bounds(0, MAX_INTEGER - 1, "such number")


def bounds_of(table: str, column: str) -> Bounds:
    """Returns the bounds of a column: of its numbers, and of those in its lists and objects."""
    if column.startswith("resident_"):
        return _SHARE
    if column.endswith("_ns"):
        # The sampler may have begun before the process that it watches.
        return _EARLIER if (table, column) == ("samples", "time_ns") else _TIME
    if column in ("mean", "std"):
        return _REAL
    if column == "offset" or column.endswith("bytes") or (table, column) == ("tensors", "files"):
        return _BYTES
    return _NUMBER


class Kind(typing.NamedTuple):
    """What a column may hold."""

    types: tuple[type, ...]
    items: type | None
    """The type of the items of a list, or of the values of an object; None where they may be anything."""
    required: bool

    @property
    def integers(self) -> bool:
        """Whether it holds integers and nulls alone."""
        return set(self.types) <= {int, NoneType}


@functools.cache
def _hints() -> dict[str, Any]:
    """Returns the type hint of each annotation of a column: few differ, and evaluating one is dear."""
    texts = {
        str(field.type): field.type for row_type in TABLES.values() for field in dataclasses.fields(row_type)
    }
    return typing.get_type_hints(SimpleNamespace(__annotations__=texts), vars(model))


@functools.cache
def kinds_of(table: str) -> dict[str, Kind]:
    """Returns what each known column of a table may hold, from the type hints of its rows."""
    row_type = TABLES[table]
    hints = _hints()
    kinds: dict[str, Kind] = {}
    for field in dataclasses.fields(row_type):
        hint = hints[str(field.type)]
        types: list[type] = []
        items: type | None = None
        for part in typing.get_args(hint) if isinstance(hint, UnionType) else (hint,):
            types.append(typing.get_origin(part) or part)
            if part is float:
                types.append(int)
            arguments = typing.get_args(part)
            if arguments and arguments[-1] is not Any:
                items = arguments[-1]
        required = NoneType not in types and field.default is dataclasses.MISSING
        kinds[field.name] = Kind(tuple(types), items, required)
    return kinds


def check_columns(raw: dict[str, Any], columns: dict[str, list[Any]], table: str) -> None:
    """Refuses columns that do not hold what they have to.

    Args:
        raw: As they stand in the file.
        columns: The same, decoded.
        table: Its name.

    Raises:
        TraceError: A value is of another type, or out of bounds, or a column is not there.
    """
    kinds = kinds_of(table)
    for column, kind in kinds.items():
        if column not in columns:
            if columns and kind.required:
                raise TraceError(f"damaged trace: {table} has no column {column}")
            continue
        values = witnesses(raw[column], columns[column])
        what = f"damaged trace: {table}.{column} holds"
        bounds = bounds_of(table, column)
        _check(values, kind.types, what, bounds, columns[column])
        if kind.items is not None:
            filled: Iterable[Any] = filter(None, values)
            items = itertools.chain.from_iterable(map(dict.values, filled) if dict in kind.types else filled)
            _check(list(items), (kind.items,), f"{what} items:", bounds, columns[column])
    for column, values in columns.items():
        if column not in kinds:
            check_depth(witnesses(raw[column], values), f"{table}.{shown(column)}")
    if table == "spans" and columns:
        _check_spans(columns)


def _check(
    values: list[Any], allowed: tuple[type, ...], what: str, bounds: Bounds, rows: Sequence[Any]
) -> None:
    present = set(map(type, values))
    if not present <= set(allowed):
        wrong = ", ".join(sorted(kind.__name__ for kind in present - set(allowed)))
        raise TraceError(f"{what} values of type {wrong}")
    numbers = present & {int, float}
    if not numbers:
        return
    # Zeros go with the nulls: no bounds leave them out.
    plain = present <= {int, float, NoneType}
    known = list(filter(None, values)) if plain else [each for each in values if type(each) in numbers]
    low, high = min(known, default=0), max(known, default=0)
    if bounds.low <= low and high <= bounds.high:
        return
    wrong_one = low if low < bounds.low else high
    place = f" at row {rows.index(wrong_one)}" if wrong_one in rows else ""
    text = str(wrong_one) if abs(wrong_one) < 10**30 else "a number of more than 30 digits"
    raise TraceError(f"{what} {text}{place}, which no {bounds.what} can be")


def _check_spans(columns: dict[str, list[Any]]) -> None:
    """Spans are a tree: ids are unique, a parent comes before its children. None ends before it begins."""
    seen: set[int] = set()
    identities = columns["id"]
    for identity, parent in zip(identities, columns.get("parent", [None] * len(identities)), strict=True):
        if identity in seen or (parent is not None and parent not in seen):
            raise TraceError(
                "damaged trace: its spans do not form a tree "
                f"(span {identity} below {parent}, at row {len(seen)})"
            )
        seen.add(identity)
    starts, ends = columns["start_ns"], columns["end_ns"]
    if any(map(operator.lt, ends, starts)):
        row = next(row for row, (start, end) in enumerate(zip(starts, ends, strict=True)) if end < start)
        raise TraceError(f"damaged trace: spans.end_ns is before spans.start_ns at row {row}")


def check_depth(value: Any, what: str, depth: int = MAX_DEPTH) -> None:
    """Refuses a value that lies deeper in others than anything of ours does.

    Raises:
        TraceError: It does.
    """
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    if depth < 0:
        raise TraceError(f"damaged trace: {what} is nested too deeply")
    for each in value:
        if isinstance(each, (dict, list)):
            check_depth(each, what, depth - 1)
