"""A plan beside a trace of the load that it was made for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.time.loads import main_load_trace
from hftrace.schema.trace import Trace


def against(plan: Mapping[str, Any], trace: Trace) -> list[dict[str, Any]]:
    """Returns rows of what was predicted and what was measured; None where one of them is not known.

    Args:
        plan: As :func:`hftrace.analysis.plan.plans.plan_facts` gives it.
        trace: Of a load.

    Returns:
        Objects with ``figure``, ``planned``, ``measured`` and ``difference`` (planned by measured, less 1).
    """
    one = main_load_trace(trace)
    dtypes: Counter[str] = Counter()
    devices: Counter[str] = Counter()
    whole = True
    for row in one.tensors:
        if row.kind != "parameter" or row.tied_to is not None:
            continue
        place = row.offload or row.device
        if row.bytes is None or row.dtype is None or place is None:
            whole = False
            continue
        dtypes[str(row.dtype)] += row.bytes
        devices[str(place)] += row.bytes
    peaks = memory_peaks(trace)
    rows = [
        _row("peak_anon_bytes", plan.get("peak_anon_bytes"), peaks.anonymous_bytes),
        _row("peak_total_bytes", plan.get("peak_total_bytes"), peaks.rss_bytes),
    ]
    for title, planned, measured in (
        ("bytes_by_dtype", plan.get("bytes_by_dtype"), dtypes),
        ("bytes_by_device", plan.get("bytes_by_device"), devices),
    ):
        for name in sorted({*(planned or {}), *measured}):
            expected = None if planned is None else planned.get(name, 0)
            rows += [_row(f"{title}.{name}", expected, measured.get(name, 0) if whole else None)]
    for name, value in (plan.get("peak_device_bytes") or {}).items():
        rows.append(_row(f"peak_device_bytes.{name}", value, (peaks.device_bytes or {}).get(name)))
    return rows


def _row(figure: str, planned: int | None, measured: int | None) -> dict[str, Any]:
    known = planned is not None and measured is not None and measured > 0
    return {
        "figure": figure,
        "planned": planned,
        "measured": measured,
        "difference": planned / measured - 1 if known else None,  # type: ignore[operator]
    }
