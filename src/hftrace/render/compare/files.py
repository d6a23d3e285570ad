"""The files that groups did not treat alike, one column for each group."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison
from hftrace.analysis.compare.files import file_ledgers, treated
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.words import file_state
from hftrace.render.tables import LIMIT, Column, Row, table
from hftrace.render.text import DIM, Block, Line, heading


def draw(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns the files that groups did not treat alike, one column for each group."""

    def lines(width: int) -> Iterable[Line]:
        ledgers = file_ledgers([variant.typical for variant in comparison.variants])
        every = dict.fromkeys(key for ledger in ledgers for key in ledger)
        names = [key for key in every if len({treated(ledger.get(key)) for ledger in ledgers}) > 1]
        if not names:
            yield heading("Files", width, units.count(len(every), "file"))
            yield [("every group asked for the same files, with the same results", DIM)]
            return
        rows = [
            Row((name.label, *(file_state(ledger.get(name)) for ledger in ledgers))) for name in names[:LIMIT]
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
