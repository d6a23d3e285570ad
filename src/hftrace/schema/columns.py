"""How one column of a table is written to JSON, and read back.

A trace of 100,000 tensors must stay small and quick to read with the standard
library's ``json`` (DESIGN.md section 3), so a column is written in the
smallest of a few simple encodings. A plain JSON list is always a valid column;
everything else is an object that names its encoding:

``{"encoding": "constant", "value": v, "length": n}``
    the same value in every row.
``{"encoding": "dictionary", "values": [...], "indexes": [...]}``
    few distinct values; each row holds an index into ``values``.
``{"encoding": "delta", "start": first, "deltas": [...]}``
    integers; each row holds the difference to the previous non-null one.
``{"encoding": "reference", "column": other, "exceptions": [[row, value], ...], "list": true}``
    equal to another column of the same table (as a list of one where ``list``
    is true), but for the rows named.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from hftrace.errors import TraceError

MAX_ROWS = 5_000_000
"""More rows than any real trace has; guards against a hostile ``length``."""
MAX_DISTINCT = 4096
"""A column of more distinct values is no dictionary."""
_PLAIN = {int, str, NoneType}
"""Types whose values are equal only where their JSON is the same."""


def _key(value: Any) -> Any:
    """Returns a key that is equal for two values only where their JSON is the same.

    The type is part of it: True, 1 and 1.0 are equal in Python but not in JSON.
    """
    kind = type(value)
    if kind is list or kind is tuple:
        return (kind, *map(_key, value))
    if kind is dict:
        return (kind, *((key, _key(item)) for key, item in value.items()))
    if kind is float:
        return (kind, value.hex())  # 0.0 == -0.0
    return (kind, value)


def encode(values: Sequence[Any], *, integers: bool = False) -> Any:
    """Returns the smallest encoding of one column.

    Args:
        values: The column, one value per row.
        integers: True where the column holds integers and nulls, which makes
            the delta encoding possible.
    """
    count = len(values)
    if count < 8:
        return list(values)
    keys = _keys(values)
    distinct = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    if len(distinct) == 1:
        return {"encoding": "constant", "value": values[0], "length": count}
    if len(distinct) <= min(MAX_DISTINCT, count // 2):
        first_values = dict(zip(reversed(keys), reversed(values), strict=True))
        return {
            "encoding": "dictionary",
            "values": [first_values[key] for key in distinct],
            "indexes": list(map(distinct.__getitem__, keys)),
        }
    if integers:
        return {"encoding": "delta", "start": 0, "deltas": _deltas(values)}
    return list(values)


def _keys(values: Sequence[Any]) -> Sequence[Any]:
    """Returns a key for each value, as :func:`_key` does, and quickly for what most columns hold."""
    kinds = set(map(type, values))
    if kinds <= _PLAIN:
        return values
    if kinds <= {list, NoneType}:
        items = itertools.chain.from_iterable(filter(None, values))
        if set(map(type, items)) <= _PLAIN:
            return [value if value is None else tuple(value) for value in values]
    return list(map(_key, values))


def _deltas(values: Sequence[int | None]) -> list[int | None]:
    """Returns the difference of each integer to the one before it; nulls stay."""
    known = [value for value in values if value is not None]
    deltas = map(operator.sub, known, [0, *known])
    return list(deltas) if len(known) == len(values) else [v if v is None else next(deltas) for v in values]


def encode_reference(values: Sequence[Any], column: str, other: Sequence[Any]) -> Any:
    """Encodes a column of lists that mostly equals ``[other[row]]``."""
    exceptions = [[row, value] for row, value in enumerate(values) if value != [other[row]]]
    if len(values) < 8 or len(exceptions) * 2 > len(values):
        return encode(values)
    return {"encoding": "reference", "column": column, "exceptions": exceptions, "list": True}


def _integers(values: Any, name: str, *, nulls: bool) -> list[Any]:
    allowed = {int, type(None)} if nulls else {int}
    if not isinstance(values, list) or not set(map(type, values)) <= allowed:
        raise TraceError(f"damaged trace: column {name} must be a list of integers")
    return values


def _null_rows(values: list[Any]) -> Iterator[int]:
    """Yields the rows that hold null; quick where there are few."""
    row = -1
    try:
        while True:
            row = values.index(None, row + 1)
            yield row
    except ValueError:
        return


def shown(text: Any) -> str:
    """Returns something from a file as it may stand in an error message: quoted, and short."""
    quoted = repr(text[:80]) if isinstance(text, str) else f"of type {type(text).__name__}"
    return quoted if len(quoted) <= 60 else f"{quoted[:57]}..."


def length(raw: Any, name: str) -> int | None:
    """Returns how many rows an encoded column claims to have, without decoding it.

    None stands for a reference, which has as many rows as the column it points to.

    Raises:
        TraceError: See :func:`decode`.
    """
    if isinstance(raw, list):
        return len(raw)
    name = shown(name)
    if not isinstance(raw, dict):
        raise TraceError(f"damaged trace: column {name} is neither a list nor an encoded column")
    encoding = raw.get("encoding")
    if encoding == "constant":
        count = raw.get("length")
        if type(count) is not int or not 0 <= count <= MAX_ROWS:
            raise TraceError(f"damaged trace: column {name} has an impossible length")
        return count
    if encoding == "reference":
        return None
    part = {"dictionary": "indexes", "delta": "deltas"}.get(encoding) if isinstance(encoding, str) else None
    if part is None:
        raise TraceError(
            f"this trace uses the column encoding {shown(encoding)}, unknown here: upgrade hftrace"
        )
    rows = raw.get(part)
    if not isinstance(rows, list):
        raise TraceError(f"damaged trace: column {name} must be a list of integers")
    return len(rows)


def decode(raw: Any, name: str, decoded: Mapping[str, list[Any]]) -> list[Any]:
    """Returns the plain values of a column.

    Args:
        raw: The column as it stands in the file.
        name: Its name, for error messages.
        decoded: The other columns of the same table; a reference points to
            one of these.

    Raises:
        TraceError: The column is not what this module's encodings allow.
    """
    if isinstance(raw, list):
        return raw
    count = length(raw, name)
    name = shown(name)
    encoding = raw["encoding"]
    if encoding == "constant":
        assert count is not None
        return [raw.get("value")] * count
    if encoding == "dictionary":
        values = raw.get("values")
        indexes = _integers(raw["indexes"], name, nulls=False)
        if not isinstance(values, list):
            raise TraceError(f"damaged trace: column {name} has no values")
        try:
            if min(indexes, default=0) < 0:
                raise IndexError
            return list(map(values.__getitem__, indexes))
        except IndexError:
            raise TraceError(f"damaged trace: column {name} points outside its values") from None
    if encoding == "delta":
        current = raw.get("start", 0)
        if type(current) is not int:
            raise TraceError(f"damaged trace: column {name} has no integer start")
        deltas = _integers(raw["deltas"], name, nulls=True).copy()
        nulls = list(_null_rows(deltas))
        for row in nulls:
            deltas[row] = 0
        totals: list[int | None] = list(itertools.accumulate(deltas, initial=current))
        del totals[0]
        for row in nulls:
            totals[row] = None
        return totals
    target = raw.get("column")
    other = decoded.get(target) if isinstance(target, str) else None
    exceptions = raw.get("exceptions")
    if other is None or not isinstance(exceptions, list):
        raise TraceError(f"damaged trace: column {name} refers to a column that is not there")
    result = [[value] for value in other] if raw.get("list") is True else list(other)
    for exception in exceptions:
        if not (
            isinstance(exception, list)
            and len(exception) == 2
            and type(exception[0]) is int
            and 0 <= exception[0] < len(result)
        ):
            raise TraceError(f"damaged trace: column {name} has an exception outside its rows")
        result[exception[0]] = exception[1]
    return result


def witnesses(raw: Any, values: list[Any]) -> list[Any]:
    """Returns values that stand for a whole column: whatever any row holds is among them.

    Args:
        raw: The column as it stands in the file.
        values: The same, decoded.
    """
    encoding = raw.get("encoding") if isinstance(raw, dict) else None
    if encoding == "dictionary":
        distinct: list[Any] = raw["values"]
        return distinct
    return values[:1] if encoding == "constant" else values


def each_distinct(raw: Any, change: Callable[[list[Any]], list[Any]]) -> Any:
    """Returns an encoded column whose values were changed, each that differs once.

    Args:
        raw: The column as it stands in the file, whatever it is.
        change: Takes values, and returns what to put in their places.
    """
    encoding = raw.get("encoding") if isinstance(raw, dict) else None
    if isinstance(raw, list):
        return change(raw)
    if encoding == "dictionary" and isinstance(raw.get("values"), list):
        return {**raw, "values": change(raw["values"])}
    if encoding == "constant":
        return {**raw, "value": change([raw.get("value")])[0]}
    return raw
