"""Tables of a trace, for programs: rows, columns, and data frames."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hftrace.errors import HftraceError
from hftrace.schema import model
from hftrace.schema.model import Load, Row

if TYPE_CHECKING:
    import pandas

    from hftrace.schema.trace import Trace

_DTYPES = {bool: "boolean", int: "Int64", float: "Float64", str: "string"}
"""pandas' own types with nulls: a column of integers that has one is not turned into floats."""


class Table(model.Table[Row]):
    """A table of a trace: a sequence of rows, whose columns can be had too.

    ``len(table)``, ``table[0]``, ``for row in table``; rows have an attribute
    for each column.
    """

    def to_pandas(self) -> pandas.DataFrame:
        """Returns the table as a data frame of pandas, one column for each of its own.

        Integers stay integers, those of nanoseconds too, and what is not known
        is ``<NA>``: dtypes are ``Int64``, ``Float64``, ``boolean`` and
        ``string``. Lists and objects (``keys``, ``shape``, ``attributes``) stay
        what they are, and None among them.

        Raises:
            HftraceError: pandas is not installed.
        """
        hints = typing.get_type_hints(self.row_type)
        return _frame(self.columns, hints)


class Loads(list[Load]):
    """The outermost loads of a trace: a list of rows, and a data frame of all that is known of each.

    Args:
        rows: The loads.
        trace: Theirs.
    """

    def __init__(self, rows: Iterable[Load], trace: Trace) -> None:
        super().__init__(rows)
        self._trace = trace

    def to_pandas(self) -> pandas.DataFrame:
        """Returns what the summary has of each load as a data frame of pandas.

        Columns are those of ``hftrace export --table loads``, with dtypes as :meth:`Table.to_pandas` has
        them.

        Raises:
            HftraceError: pandas is not installed.
        """
        from hftrace.export.table import FLAG, INTEGER, LOADS, NUMBER, TEXT, columns_of

        simple = {INTEGER: int, NUMBER: float, FLAG: bool, TEXT: str}
        hints = {name: simple.get(kind) for name, kind in LOADS.items()}
        return _frame(columns_of(self._trace, "loads"), hints)


def _frame(columns: Mapping[str, list[Any]], hints: Mapping[str, Any]) -> pandas.DataFrame:
    """Returns columns as a data frame, each by the type hint of what it holds.

    Raises:
        HftraceError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise HftraceError(f"to_pandas() needs pandas ({error}): pip install pandas") from None
    made = {
        name: pandas.Series(values, dtype=_dtype(hints.get(name), values), name=name)
        for name, values in columns.items()
    }
    return pandas.DataFrame(made)


def _dtype(hint: Any, values: list[Any]) -> str:
    """Returns pandas' type for a column, by the type hint of its field."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [part for part in parts if part is not types.NoneType]
    dtype = _DTYPES.get(kinds[0], "object") if len(kinds) == 1 else "object"
    if dtype == "Int64" and any(value is not None and not -(2**63) <= value < 2**63 for value in values):
        return "object"  # a trace may hold larger integers than a column of pandas
    return dtype
