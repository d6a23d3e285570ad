"""One table of a trace, as named columns: what the formats that hold a table write."""

from __future__ import annotations

from typing import Any

from hftrace.analysis.summary import summary
from hftrace.schema.trace import Trace


def columns_of(trace: Trace, table: str) -> dict[str, list[Any]]:
    """Returns a table of a trace by column.

    Args:
        trace: The trace.
        table: One of :data:`hftrace.export.TABLES`; ``loads`` are those of the trace's summary.
    """
    if table == "loads":
        loads: list[dict[str, Any]] = summary(trace)["loads"]
        return {name: [load[name] for load in loads] for name in (loads[0] if loads else ())}
    found: dict[str, list[Any]] = getattr(trace, table).columns
    return found
