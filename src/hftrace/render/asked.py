"""What a caller asks of a view, checked: the same on the command line and in Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hftrace.errors import UsageError
from hftrace.render.filters import filters
from hftrace.render.registry import misplaced
from hftrace.render.views import VIEWS
from hftrace.render.views.options import ViewOptions

if TYPE_CHECKING:
    from hftrace.schema.statistics import Measured
    from hftrace.schema.trace import Trace


def view_options(
    view: str | None,
    *,
    depth: int | None = None,
    min_ms: float | None = None,
    patterns: Sequence[str] = (),
    limit: int | None = None,
    measure: Callable[[Trace, Sequence[int]], Sequence[Measured]] | None = None,
) -> ViewOptions:
    """Returns the options of a view.

    Args:
        view: Its name; None for the default screen.
        depth: Levels of the call tree; 0 for all.
        min_ms: The least milliseconds of a call in the tree.
        patterns: What names, or the values of columns, must match.
        limit: Rows of a table; 0 for all.
        measure: Returns the statistics of rows of the tensor ledger; None where none were asked for.

    Raises:
        UsageError: The view does not take an option that was given, or it has no such value.
    """
    given = {"depth": depth, "min-ms": min_ms, "filter": patterns or None, "limit": limit, "stats": measure}
    wrong = misplaced(VIEWS, view, [name for name, value in given.items() if value is not None])
    if wrong is not None:
        raise UsageError(wrong)
    if min_ms is not None and not math.isfinite(min_ms):
        raise UsageError("--min-ms must be a number of milliseconds")
    names, where = filters(patterns, view)
    return ViewOptions(
        depth=depth,
        min_ns=None if min_ms is None else round(min_ms * 1e6),
        matches=names,
        limit=limit,
        measure=measure,
        where=where,
    )
