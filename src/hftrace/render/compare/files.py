"""The files that groups did not treat alike, one column for each group."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.words import file_state
from hftrace.render.tables import LIMIT, Column, Row, table
from hftrace.render.text import DIM, Block, Line, heading


def draw(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns the files that groups did not treat alike, one column for each group."""

    def lines(width: int) -> Iterable[Line]:
        names = dict.fromkeys(
            change.name for difference in comparison.differences for change in difference.files
        )
        ledgers = [
            {file.name: file for file in reversed(list(variant.typical.files))}
            for variant in comparison.variants
        ]
        every = {name for ledger in ledgers for name in ledger}
        if not names:
            yield heading("Files", width, units.count(len(every), "file"))
            yield [("every group asked for the same files, with the same results", DIM)]
            return
        rows = [
            Row((name, *(file_state(ledger.get(name)) for ledger in ledgers))) for name in list(names)[:LIMIT]
        ]
        columns = [Column("file", most=200)]
        columns += [
            Column(variant.name, most=18, rank=number) for number, variant in enumerate(comparison.variants)
        ]
        remarks = [f"+ {len(names) - LIMIT} more: --json"] if len(names) > LIMIT else []
        if len(every) > len(names):
            remarks.append(f"{units.count(len(every) - len(names), 'file')} treated alike are left out")
        yield from table("Files that differ", f"{len(names)} of {len(every)}", columns, rows, remarks).lines(
            width
        )

    return [Block(lines)]
