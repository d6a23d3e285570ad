"""What a load quantised: how much, in which time, and what the model says that it takes now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import Total, group_totals, tensor_sums
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.once import once
from hftrace.analysis.time.phases import phase_times
from hftrace.analysis.values import natural, text
from hftrace.schema.trace import Trace

NUMBERS = frozenset({"float64", "float32", "float16", "bfloat16"})
"""Formats in which a value means itself: full precision, to a quantiser."""


class Quantised(NamedTuple):
    """What was quantised in one load."""

    total: Total
    """Of the tensors that were made of full precision; ``stored_bytes`` is what that took."""
    stored_dtypes: list[str]
    dtypes: list[str]
    duration_ns: int | None
    """Of the quantiser's own work; None where it was not seen."""
    footprint_bytes: int | None
    """What the model's ``get_memory_footprint()`` says: without what some methods keep beside their codes."""
    skipped: list[str]
    """Modules that the quantiser was told, or has decided, to leave as they are."""

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {
            "count": self.total.count,
            "stored_bytes": self.total.stored_bytes,
            "bytes": self.total.bytes,
            "stored_dtypes": self.stored_dtypes,
            "dtypes": self.dtypes,
            "duration_ns": self.duration_ns,
            "footprint_bytes": self.footprint_bytes,
            "skipped": self.skipped,
        }


@once
def quantised(trace: Trace) -> Quantised | None:
    """Returns what was quantised in the load of a model; None where nothing was, or it was stored so."""
    sums = {
        sort: total
        for sort, total in tensor_sums(as_loaded(trace)).items()
        if sort.provenance == "quantized" and sort.stored_dtype in NUMBERS
    }
    if not sums:
        return None
    total = Total()
    for each in sums.values():
        total.add(each)
    got: Mapping[str, Any] = next((load.got for load in model_loads(trace) if load.got), {})
    said = got.get("quantization")
    skipped = said.get("skipped") if isinstance(said, Mapping) else None
    names = [name for each in skipped if (name := text(each))] if isinstance(skipped, list) else []
    return Quantised(
        total,
        list(group_totals(sums, "stored_dtype")),
        list(group_totals(sums, "dtype")),
        phase_times(trace).get("quantize"),
        natural(got.get("footprint_bytes")),
        names,
    )
