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

from collections.abc import Mapping, Sequence
from typing import Any

from hftrace.errors import TraceError

MAX_ROWS = 20_000_000
"""More rows than any real trace has; guards against a hostile ``length``."""


def _hashable(value: Any) -> Any:
    """Returns a key that stands for ``value``; lists become tuples."""
    if isinstance(value, list):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, _hashable(item)) for key, item in value.items())
    return value


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
    distinct: dict[Any, int] = {}
    indexes: list[int] = []
    limit = min(4096, count // 2)
    for value in values:
        # bool and int are equal in Python but not in JSON, hence the type.
        key = (type(value), _hashable(value))
        indexes.append(distinct.setdefault(key, len(distinct)))
        if len(distinct) > limit:
            break
    else:
        if len(distinct) == 1:
            return {"encoding": "constant", "value": values[0], "length": count}
        first_rows: dict[int, int] = {}
        for row, index in enumerate(indexes):
            first_rows.setdefault(index, row)
        return {
            "encoding": "dictionary",
            "values": [values[first_rows[index]] for index in range(len(distinct))],
            "indexes": indexes,
        }
    if integers:
        previous = 0
        deltas: list[int | None] = []
        for value in values:
            if value is None:
                deltas.append(None)
            else:
                deltas.append(value - previous)
                previous = value
        return {"encoding": "delta", "start": 0, "deltas": deltas}
    return list(values)


def encode_reference(values: Sequence[Any], column: str, other: Sequence[Any]) -> Any:
    """Encodes a column of lists that mostly equals ``[other[row]]``."""
    exceptions = [[row, value] for row, value in enumerate(values) if value != [other[row]]]
    if len(values) < 8 or len(exceptions) * 2 > len(values):
        return encode(values)
    return {"encoding": "reference", "column": column, "exceptions": exceptions, "list": True}


def _integers(values: Any, what: str) -> list[Any]:
    if not isinstance(values, list) or not all(item is None or type(item) is int for item in values):
        raise TraceError(f"damaged trace: {what} must be a list of integers")
    return values


def decode(raw: Any, name: str, decoded: Mapping[str, list[Any]]) -> list[Any]:
    """Returns the plain values of a column.

    Args:
        raw: The column as it stands in the file.
        name: Its name, for error messages.
        decoded: The columns of the same table read so far; a reference
            points to one of these.

    Raises:
        TraceError: The column is not what this module's encodings allow.
    """
    if isinstance(raw, list):
        return raw
    if not isinstance(raw, dict):
        raise TraceError(f"damaged trace: column {name!r} is neither a list nor an encoded column")
    encoding = raw.get("encoding")
    if encoding == "constant":
        length = raw.get("length")
        if type(length) is not int or not 0 <= length <= MAX_ROWS:
            raise TraceError(f"damaged trace: column {name!r} has an impossible length")
        return [raw.get("value")] * length
    if encoding == "dictionary":
        values = raw.get("values")
        indexes = _integers(raw.get("indexes"), f"column {name!r}")
        if not isinstance(values, list):
            raise TraceError(f"damaged trace: column {name!r} has no values")
        if indexes and not (
            all(index is not None for index in indexes) and min(indexes) >= 0 and max(indexes) < len(values)
        ):
            raise TraceError(f"damaged trace: column {name!r} points outside its values")
        return [values[index] for index in indexes]
    if encoding == "delta":
        current = raw.get("start", 0)
        if type(current) is not int:
            raise TraceError(f"damaged trace: column {name!r} has no integer start")
        result: list[Any] = []
        for delta in _integers(raw.get("deltas"), f"column {name!r}"):
            if delta is None:
                result.append(None)
            else:
                current += delta
                result.append(current)
        return result
    if encoding == "reference":
        other = decoded.get(str(raw.get("column")))
        exceptions = raw.get("exceptions")
        if other is None or not isinstance(exceptions, list):
            raise TraceError(f"damaged trace: column {name!r} refers to a column that is not there")
        result = [[value] for value in other] if raw.get("list") else list(other)
        for exception in exceptions:
            if not (
                isinstance(exception, list)
                and len(exception) == 2
                and type(exception[0]) is int
                and 0 <= exception[0] < len(result)
            ):
                raise TraceError(f"damaged trace: column {name!r} has an exception outside its rows")
            result[exception[0]] = exception[1]
        return result
    raise TraceError(f"this trace uses the column encoding {encoding!r}, unknown here: upgrade hftrace")
