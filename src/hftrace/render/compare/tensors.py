"""What differs between the tensors of each variant and the baseline's, folded over layers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison, Difference
from hftrace.analysis.compare.tensor_diff import TensorGroup
from hftrace.render.compare.options import CompareOptions
from hftrace.render.tables import LIMIT, Column, Row, table
from hftrace.render.text import DIM, PLAIN, TIMES, WARN, Block, Line, heading, shorten

MEMBERS = 4
"""A folded group of so few tensors a layer is followed by their names."""


def draw(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns what differs between the tensors of each variant and the baseline's, folded over layers."""

    def lines(width: int) -> Iterable[Line]:
        for number, difference in enumerate(comparison.differences):
            if number:
                yield []
            yield from _tensor_table(difference, width)

    return [Block(lines)]


def _tensor_table(difference: Difference, width: int) -> Iterable[Line]:
    diff = difference.tensors
    base, name = difference.baseline.name, difference.variant.name
    groups = [*diff.changed, *diff.only_before, *diff.only_after]
    rows = [row for group in diff.changed[:LIMIT] for row in tensor_rows(group, "", PLAIN)]
    rows += [row for group in diff.only_before[:LIMIT] for row in tensor_rows(group, f"only in {base}", WARN)]
    rows += [row for group in diff.only_after[:LIMIT] for row in tensor_rows(group, f"only in {name}", WARN)]
    title = shorten(f"Tensors: {name} against {base}", width - 4)
    note = f"{diff.same:,} the same"
    if not rows:
        yield heading(title, width, note)
        yield [("no tensor differs in name, shape, dtype, device, provenance or tie", DIM)]
        return
    columns = (
        Column("tensor", most=200),
        Column("what", most=max(16, width // 2 - 8)),
        Column("baseline", right=True, rank=1),
        Column("variant", right=True, rank=1),
    )
    left_out = sum(max(0, len(part) - LIMIT) for part in (diff.changed, diff.only_before, diff.only_after))
    remarks = [f"+ {left_out} of {len(groups)} groups: --json"] if left_out else []
    yield from table(title, note, columns, rows, remarks).lines(width)


def tensor_rows(group: TensorGroup, what: str, style: str) -> Iterable[Row]:
    """Yields a row for each field that changed; the first one has the name and the bytes."""
    label = group.label
    if len(group.members) > 1:
        label += f" {TIMES} {units.count(len(group.members), 'tensor')}"
    sizes = [
        units.byte_count(size) if size else units.UNKNOWN for size in (group.bytes_before, group.bytes_after)
    ]
    changes = [_change(*change) for change in group.change] or [what]
    yield Row((label, changes[0], *sizes), style)
    # Of a part of a layer, a name says more than a number.
    members = group.members if 1 < len(group.members) <= MEMBERS else []
    for member, change in zip_longest(members, changes[1:], fillvalue=""):
        yield Row((f"  {member}" if member else "", change, "", ""), DIM)


def _change(field: str, before: object, after: object) -> str:
    names = {"tied_to": "tied to ", "offload": "offloaded to ", "bytes": "bytes "}
    values = [
        TIMES.join(map(str, value)) or "scalar"
        if isinstance(value, tuple)
        else "nothing"
        if value is None
        else str(value)
        for value in (before, after)
    ]
    return f"{names.get(field, '')}{values[0]} → {values[1]}"
