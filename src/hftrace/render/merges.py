"""Parameters that were merged of several keys each, as a table of the memory view and in words."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.ledger.merges import merges
from hftrace.analysis.memory.composition import Composition
from hftrace.analysis.time.weights import checkpoint_bytes
from hftrace.render.tables import Column, Row, table
from hftrace.render.text import Block, clean
from hftrace.schema.trace import Trace

JOINS = frozenset({"MergeModulelist", "Concatenate"})
"""Operations whose result is as large as what they join."""


def merges_table(trace: Trace, made: Composition | None) -> Block | None:
    """Returns what was merged, and what the load's peak is against its files; None where nothing was.

    Args:
        trace: The trace.
        made: What the peak was made of, where that is known.
    """
    found = merges(trace)
    if not found:
        return None
    columns: tuple[Column, ...] = (
        Column("merged", most=120, least=30),
        Column("keys", right=True),
        Column("to", right=True, rank=2),
        Column("bytes", right=True),
        Column("by", most=60, rank=3),
        Column("waited", right=True, rank=1),
        Column("merging", right=True),
    )
    # For its keys to be read: where another thread had read all of them before, for nothing.
    waited = any(each.waiting_ns for each in found)
    columns = tuple(column for column in columns if waited or column.title != "waited")
    rows = [
        Row(
            (
                clean(each.label),
                f"{each.keys:,}",
                f"{each.tensors:,}",
                units.byte_count(each.bytes),
                clean(", ".join(each.operations)),
                *([units.duration(each.waiting_ns)] if waited else []),
                units.duration(each.merging_ns),
            )
        )
        for each in found
    ]
    return table("Merged of several keys", "", columns, rows, list(_remarks(trace, made)))


def _remarks(trace: Trace, made: Composition | None) -> Iterator[str]:
    whole = [each for each in merges(trace) if set(each.operations) <= JOINS]
    if whole:
        largest = max(whole, key=lambda each: each.largest_bytes)
        yield (
            "while a parameter is merged its parts and the whole are there at once: of the largest, in "
            f"{clean(largest.label)}, at least {units.byte_count(2 * largest.largest_bytes)}"
        )
    size = checkpoint_bytes(trace)
    if made is not None and size:
        rise = made.peak_bytes - made.start_bytes
        yield (
            f"the load's peak of CPU memory is {units.byte_count(rise)} above its start, "
            f"{rise / size:.1f} times the {units.byte_count(size)} of its files"
        )
