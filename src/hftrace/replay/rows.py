"""Rows of a tensor ledger: chosen, joined, put in another order."""

from __future__ import annotations

from collections.abc import Collection

from hftrace.schema.model import Table, Tensor


def first(table: Table[Tensor], count: int) -> Table[Tensor]:
    """Returns the first rows."""
    return Table(Tensor, {name: column[:count] for name, column in table.columns.items()})


def unused_rows(table: Table[Tensor], given: Collection[str] = ()) -> Table[Tensor]:
    """Returns the rows of keys that went nowhere.

    Args:
        table: Of a load.
        given: Names of tensors that the caller handed over, and that are from no file any more: what was made
            of the key of that name, before, nobody knows.
    """
    kinds, keys = table.column("kind"), table.column("keys")
    rows = (at for at, kind in enumerate(kinds) if kind == "unused")
    return chosen(table, [at for at in rows if not any(key in given for key in keys[at])])


def chosen(table: Table[Tensor], rows: list[int]) -> Table[Tensor]:
    """Returns some rows."""
    return Table(Tensor, {name: [column[each] for each in rows] for name, column in table.columns.items()})


def joined(tables: list[Table[Tensor]]) -> Table[Tensor]:
    """Returns the rows of all tables."""
    names = {name for table in tables for name in table.columns}
    return Table(Tensor, {name: [each for table in tables for each in table.column(name)] for name in names})


def reordered(table: Table[Tensor], order: list[int]) -> Table[Tensor]:
    """Returns the rows in the order of the model; ``order`` has the place of each of them there."""
    return chosen(table, sorted(range(len(order)), key=order.__getitem__))


def renamed(table: Table[Tensor], names: list[str], current: dict[str, str]) -> Table[Tensor]:
    """Returns the rows under other names.

    Args:
        table: The rows.
        names: Their names.
        current: By the names that the rows are tied to: the new ones of those.
    """
    tied = [current.get(name, name) if name is not None else None for name in table.column("tied_to")]
    return Table(Tensor, {**table.columns, "name": list(names), "tied_to": tied})
