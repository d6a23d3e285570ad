"""What a view is asked to show, and rows as a view gives them to be printed as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from hftrace.schema.statistics import Measured
    from hftrace.schema.trace import Trace


class ViewOptions(NamedTuple):
    """What to show of a trace: each view takes what its line in the registry says."""

    depth: int | None = None
    """Levels of the call tree; 0 shows all, None as many as the view likes."""
    min_ns: int | None = None
    """Calls shorter than this are hidden; None leaves it to the view."""
    matches: Callable[[str], bool] | None = None
    """Says whether a name is to be shown; None shows all."""
    limit: int | None = None
    """Rows of a table; 0 shows all, None as many as the view likes."""
    measure: Callable[[Trace, Sequence[int]], Sequence[Measured]] | None = None
    """Returns the statistics of rows of the tensor ledger; None where none were asked for."""
    where: tuple[tuple[str, str], ...] = ()
    """Columns of a table, each with the value that a row must have to be shown."""

    @property
    def filtered(self) -> bool:
        """Whether some rows of a table may be left out for what they are."""
        return self.matches is not None or bool(self.where)

    def row_limit(self, usual: int) -> int | None:
        """Returns how many rows a table may have; None for all."""
        return usual if self.limit is None else self.limit or None


class Rows(NamedTuple):
    """Rows of a table in columns, to be printed without building a list of objects."""

    columns: dict[str, list[Any]]
    chosen: Sequence[int]
    """The rows to print, by their positions."""
