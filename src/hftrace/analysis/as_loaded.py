"""The tensors as their loads left them, and what became of each since.

What the program does to a model afterwards (a cast, a move, a resize) changes
the ledger's rows, and is nothing that the load did: what a load did is asked
of the tensors as they were when it returned.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict

from hftrace.analysis.once import once
from hftrace.schema.model import Table, Tensor
from hftrace.schema.trace import Trace


@once
def as_loaded(trace: Trace) -> Trace:
    """Returns the trace with the tensors as its loads left them; itself where nothing was done since."""
    if not len(trace.at_return):
        return trace
    return dataclasses.replace(trace, tensors=trace.at_return, at_return=Table.of(Tensor, []))


@once
def rows_since(trace: Trace) -> list[tuple[int, int]]:
    """Returns which row of ``at_return`` is which row of ``tensors``, of tensors with keys; in order.

    An adapter around a module gives its tensors other names and another load. What they were loaded from
    stays, and says which they are where one tensor alone was.
    """
    if not len(trace.at_return):
        return []
    columns = ("load", "name", "file", "keys")
    by_name: dict[tuple[int | None, str | None], int] = {}
    by_source: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for row, (load, name, file, keys) in enumerate(zip(*map(trace.tensors.column, columns), strict=True)):
        by_name[load, name] = row
        if keys:
            source = (file, *keys)
            by_source[source].append(row)
    before = list(zip(*map(trace.at_return.column, columns), strict=True))
    times = Counter((file, *keys) for _, _, file, keys in before)
    found = []
    for row, (load, name, file, keys) in enumerate(before):
        if name is None or not keys:
            continue
        source = (file, *keys)
        now = by_name.get((load, name))
        if now is None and times[source] == 1 and len(by_source[source]) == 1:
            now = by_source[source][0]
        if now is not None:
            found.append((row, now))
    return found
