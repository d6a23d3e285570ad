"""The file ledger: what was asked for, found or not, read, and in RAM before and after."""

from __future__ import annotations

from collections.abc import Sequence

from hftrace import units
from hftrace.analysis.time.moved import moved_by_file
from hftrace.analysis.time.spans import span_index
from hftrace.render.chosen import chosen_rows, nothing_chosen
from hftrace.render.tables import LIMIT, Column, Row, limited, table
from hftrace.render.text import BAD, DIM, PLAIN, Block
from hftrace.render.views.options import Rows, ViewOptions
from hftrace.schema.model import File
from hftrace.schema.trace import Trace


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns the file ledger."""
    columns = (
        Column("file", most=200),
        Column("result", most=12),
        Column("size", right=True),
        Column("read", right=True, rank=3),
        Column("mapped", right=True, rank=3),
        Column("in RAM", right=True, rank=1),
        Column("asked", right=True, rank=4),
        Column("requests", right=True, rank=5),
        Column("asked by", most=34, rank=6),
    )
    chosen = _chosen(trace, options)
    shown, remarks = limited(len(chosen), options.row_limit(LIMIT), "file")
    if not chosen:
        remarks += nothing_chosen(trace.files, options)
    functions = trace.spans.column("function")
    names = trace.spans.column("name")
    rows = []
    for row in chosen[:shown]:
        file = trace.files[row]
        asker = span_index(trace).row_of.get(file.asked_by) if file.asked_by is not None else None
        missed = file.result in ("missing", "error")
        resident = (
            units.UNKNOWN
            if file.resident_before is None and file.resident_after is None
            else f"{units.share(file.resident_before)} → {units.share(file.resident_after)}"
        )
        rows.append(
            Row(
                (
                    file.name,
                    ("✗ " if missed else "") + file.result,
                    units.byte_count(file.size_bytes),
                    *_moved(trace, file),
                    resident,
                    str(file.asked),
                    units.UNKNOWN if not file.requests else str(file.requests),
                    units.UNKNOWN if asker is None else functions[asker] or names[asker],
                ),
                BAD if file.result == "error" else DIM if missed else PLAIN,
            )
        )
    if any(row.cells[5] != units.UNKNOWN for row in rows):
        remarks.append("in RAM: share of the file in the page cache before and after the load")
    every = units.count(len(trace.files), "file")
    note = f"{len(chosen):,} of {len(trace.files):,}" if options.filtered else every
    return [table("Files", note, columns, rows, remarks)]


def facts(trace: Trace, options: ViewOptions) -> Rows:
    """Returns the rows that match, with every column."""
    return Rows(trace.files.columns, _chosen(trace, options))


def _moved(trace: Trace, file: File) -> tuple[str, str]:
    """Returns what was read of a weight file, and what the model has right out of it, as text."""
    moved = moved_by_file(trace).get((file.rank, file.name.rpartition("/")[2]))
    if moved is None or moved.unknown:
        return units.byte_count(file.read_bytes) if file.read_bytes == 0 else units.UNKNOWN, units.UNKNOWN
    return units.byte_count(moved.read), units.byte_count(moved.mapped) if moved.mapped else units.UNKNOWN


def _chosen(trace: Trace, options: ViewOptions) -> Sequence[int]:
    """Returns the rows whose name matches."""
    names = trace.files.column("name")
    return chosen_rows(trace.files, options, lambda row: (names[row],))
