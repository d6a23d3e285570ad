"""Rules about the values that a model holds, where they were measured."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, Where, first_few, rule
from hftrace.schema.model import Tensor
from hftrace.schema.trace import Trace

MAX_NAMES = 3
ADAPTER = "lora_"
"""In the name of a matrix of LoRA: the product of the two begins as nothing, and so does one of them."""


@rule(
    ("R46", "not-finite", "Parameters that no file has hold values that are no numbers, by `load --stats`."),
    concerns="weights",
    severity="error",
    at_end=True,
)
def not_finite(trace: Trace) -> Iterator[Finding]:
    """R46: a new head or adapter holds NaN or infinity, and so does whatever is computed with it.

    Buffers are left out: a mask holds infinities because it should.
    """
    if not trace.tensors.is_known("nans"):
        return
    columns = (trace.tensors.column(name) for name in ("kind", "nans", "infs"))
    bad = [
        trace.tensors[row]
        for row, (kind, nans, infs) in enumerate(zip(*columns, strict=True))
        if kind == "parameter" and (nans or infs)
    ]
    if not bad:
        return
    said = "; ".join(_words(row) for row in bad[:MAX_NAMES])
    rest = f"; and {len(bad) - MAX_NAMES} more" if len(bad) > MAX_NAMES else ""
    yield Finding(
        "R46",
        "not-finite",
        f"{units.count(len(bad), 'parameter')} without a file {'holds' if len(bad) == 1 else 'hold'} "
        "NaN or infinity",
        f"{said}{rest}. No file has values for {'it' if len(bad) == 1 else 'them'}.",
        "Initialise them before the model is used or trained (torch.nn.init); if nothing was seen to write "
        "them, another version of transformers may initialise them.",
        cost_bytes=sum(row.bytes or 0 for row in bad),
        numbers={"parameters": len(bad)},
        where=Where(tensors=first_few(row.name for row in bad)),
    )


@rule(
    ("R46", "constant-values", "A new matrix holds one value alone, by `load --stats`.", "warning"),
    concerns="weights",
    severity="warning",
    at_end=True,
)
def constant_values(trace: Trace) -> Iterator[Finding]:
    """R46: a new head whose values are all the same, so that its rows learn the same, or nothing.

    Vectors are left out, because biases and scales begin so, and matrices of LoRA, one of which does.
    """
    if not trace.tensors.is_known("std"):
        return
    columns = (trace.tensors.column(name) for name in ("kind", "std", "shape", "name", "nans", "infs"))
    flat = [
        trace.tensors[row]
        for row, (kind, std, shape, name, *no_numbers) in enumerate(zip(*columns, strict=True))
        if kind == "parameter"
        and std == 0
        and not any(no_numbers)
        and shape is not None
        and len(shape) == 2
        and min(shape) > 1
        and ADAPTER not in (name or "")
    ]
    if not flat:
        return
    said = "; ".join(f"{row.name} ({row.provenance}): {_value(row)}" for row in flat[:MAX_NAMES])
    rest = f"; and {len(flat) - MAX_NAMES} more" if len(flat) > MAX_NAMES else ""
    yield Finding(
        "R46",
        "constant-values",
        f"{units.count(len(flat), 'matrix', 'matrices')} without a file "
        f"{'holds' if len(flat) == 1 else 'hold'} one value alone",
        f"{said}{rest}. Rows that are the same give the same, and are trained alike.",
        "Initialise them before training (torch.nn.init), unless the architecture means them to begin so, "
        "as gates do that begin closed.",
        cost_bytes=sum(row.bytes or 0 for row in flat),
        numbers={"parameters": len(flat)},
        where=Where(tensors=first_few(row.name for row in flat)),
    )


def _value(row: Tensor) -> str:
    """Returns what a tensor of one value holds."""
    return "all values are 0" if row.zeros else f"all values are {row.mean:g}"


def _words(row: Tensor) -> str:
    """Returns how many values of a tensor are no numbers, and where it is from."""
    counts = [f"{row.nans:,} NaN"] if row.nans else []
    counts += [f"{row.infs:,} infinite"] if row.infs else []
    elements = 1
    for size in row.shape or ():
        elements *= size
    of = f" of {elements:,} values" if row.shape is not None else ""
    return f"{row.name} ({row.provenance}): {' and '.join(counts)}{of}"
