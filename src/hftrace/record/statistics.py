"""Measures the values of tensors that no file has: new heads and adapters, what the model's code computes.

``--stats`` does it after the measured part, in the process that has the model.
Nothing of the model is written; a piece of one tensor at a time is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hftrace.record.contents import is_plain
from hftrace.record.recorder import Recorder, clock
from hftrace.schema import lines
from hftrace.schema.statistics import Moments, Statistics

PIECE_ELEMENTS = 1 << 22
"""What is looked at in one go."""
TELL_NS = 5_000_000_000


def measure_models(
    recorder: Recorder, models: Iterable[tuple[int, Any]], names: Mapping[int, Sequence[str]]
) -> dict[str, int]:
    """Measures tensors of several models, and writes what was found to the journal.

    Args:
        recorder: Where to.
        models: The span of each load and its model, or None where it is gone.
        names: By the span of a load: the tensors to measure.

    Returns:
        How many tensors were measured, and how many could not be.
    """
    counts = {"measured": 0, "unmeasured": 0}
    told = clock()
    for span, model in models:
        rows: list[Any] = []
        for name in names.get(span, ()):
            try:
                found = statistics_of(tensor_of(model, name))
            except Exception as error:
                recorder.error("stats", error)
                found = None
            counts["measured" if found is not None else "unmeasured"] += 1
            if found is not None:
                rows += (name, *found)
            if clock() - told > TELL_NS:
                # Many large tensors are no stall: who watches the journal must see that it goes on.
                told = clock()
                recorder.facts("progress", {"measured_tensors": counts["measured"]})
        if rows:
            recorder.write(lines.Measured(span, rows))
    return counts


def tensor_of(model: Any, name: str) -> Any:
    """Returns a parameter or a buffer of a model by its name; None where there is none."""
    owner = model
    *path, last = name.split(".")
    for part in path:
        owner = owner._modules.get(part) if owner is not None else None
    if owner is None:
        return None
    tensor = owner._parameters.get(last)
    return owner._buffers.get(last) if tensor is None else tensor


def statistics_of(tensor: Any) -> Statistics | None:
    """Returns the statistics of a tensor's values; None of one without data, or whose data are codes."""
    import torch

    if tensor is None or not is_plain(tensor) or tensor.is_meta or tensor.is_complex() or tensor.is_sparse:
        return None
    moments = Moments()
    with torch.no_grad():
        flat = tensor.detach().reshape(-1)
        for start in range(0, flat.numel(), PIECE_ELEMENTS):
            piece = flat[start : start + PIECE_ELEMENTS].cpu()
            # Floats of 8 bits become doubles by way of floats alone.
            wide = (piece.float() if piece.element_size() == 1 else piece).double()
            finite = wide.isfinite()
            count = int(finite.sum())
            nans = int(wide.isnan().sum())
            zeros = int((wide == 0).sum())
            good = wide if count == wide.numel() else wide[finite]
            mean = float(good.mean()) if count else 0.0
            squares = float((good - mean).square().sum()) if count else 0.0
            moments.add(count, mean, squares, zeros, nans, wide.numel() - count - nans)
    return moments.statistics()
