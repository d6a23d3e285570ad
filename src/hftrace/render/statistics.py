"""Statistics of tensors' values: a table of them, and the rows of the ledger with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from hftrace import units
from hftrace.render.tables import LIMIT, Column, Row, limited, table
from hftrace.render.text import BAD, DIM, PLAIN, Block
from hftrace.render.views.options import Rows, ViewOptions
from hftrace.schema.statistics import UNMEASURED, Measured
from hftrace.schema.trace import Trace

COLUMNS = (
    Column("tensor", most=200),
    Column("dtype", most=14, rank=3),
    Column("mean", right=True),
    Column("std", right=True),
    Column("zeros", right=True, rank=1),
    Column("nan", right=True),
    Column("inf", right=True),
    Column("of", most=16),
)
ADDED = ("mean", "std", "zeros", "nans", "infs")


def statistics_block(trace: Trace, chosen: Sequence[int], options: ViewOptions, title: str) -> Block:
    """Returns a table with the statistics of tensors, one row each.

    Args:
        trace: The trace of their load.
        chosen: Their rows in its ledger.
        options: What measures them, and how many are shown.
        title: Of the table.
    """
    shown, remarks = limited(len(chosen), options.row_limit(LIMIT), "tensor")
    found = options.measure(trace, chosen[:shown]) if options.measure is not None else []
    rows = [_row(trace, row, measured) for row, measured in zip(chosen, found, strict=False)]
    reasons = Counter(measured.why for measured in found if measured.why is not None)
    if any(measured.source == "file" for measured in found):
        remarks.append("of the file: the stored values, before a cast or anything else that the loader does")
    if any(measured.source == "model" for measured in found):
        remarks.append("of the model: its values in the loading process, after the load")
    remarks += [
        f"{units.count(count, 'tensor')} not read ({why}): {UNMEASURED[why]}"
        for why, count in reasons.items()
    ]
    if found:
        remarks.append("mean and std are of the finite values; std as torch.std")
    return table(title, f"{len(chosen):,}", COLUMNS, rows, remarks)


def _row(trace: Trace, row: int, measured: Measured) -> Row:
    tensor = trace.tensors[row]
    name = tensor.name or (tensor.keys[0] if tensor.keys else "(no name)")
    of_file = measured.source == "file"
    dtype = (tensor.stored_dtype if of_file else None) or tensor.dtype or ""
    found = measured.statistics
    if found is None:
        return Row((name, dtype, "", "", "", "", "", f"✗ {measured.why}"), DIM)
    elements = math.prod(tensor.shape) if tensor.shape is not None else None
    bad = found.nans or found.infs
    return Row(
        (
            name,
            dtype,
            _number(found.mean),
            _number(found.std),
            units.share(found.zeros / elements) if elements else f"{found.zeros:,}",
            f"{found.nans:,}" if found.nans else "",
            f"{found.infs:,}" if found.infs else "",
            "file" if of_file else "model",
        ),
        BAD if bad else PLAIN,
    )


def _number(value: float | None) -> str:
    return units.UNKNOWN if value is None else f"{value:.3g}"


def with_statistics(trace: Trace, chosen: Sequence[int], found: Sequence[Measured]) -> Rows:
    """Returns rows of the ledger, with the statistics of those that are chosen and where these are from."""
    columns = dict(trace.tensors.columns)
    count = len(trace.tensors)
    for name in (*ADDED, "measured_in", "unmeasured"):
        columns[name] = [None] * count
    for row, measured in zip(chosen, found, strict=True):
        columns["measured_in"][row], columns["unmeasured"][row] = measured.source, measured.why
        for name, value in zip(ADDED, measured.statistics or (None,) * len(ADDED), strict=True):
            columns[name][row] = value
    return Rows(columns, chosen)
