"""A plan beside a trace of the load that it was made for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hftrace.analysis.compare.variants import succeeded
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.time.load_names import load_names
from hftrace.analysis.time.loads import main_load_trace
from hftrace.errors import HftraceError
from hftrace.schema.trace import Trace

NOT_GIVEN = "not given"
ALIKE = {"torch_dtype": "dtype"}
"""Keywords that have two names."""
LIBRARIES = ("transformers", "torch")
MAX_LENGTH = 60
"""Characters of one value; a longer one is cut."""


class Difference(NamedTuple):
    """Something of which the plan and the trace do not say the same."""

    subject: str
    """``model, class, revision``, a library, or a keyword."""
    planned: str
    measured: str


def check_trace(trace: Trace, path: str) -> None:
    """Refuses a trace that a plan cannot be held against.

    Raises:
        HftraceError: No load in it has succeeded.
    """
    if not succeeded(trace):
        raise HftraceError(f"no load in {path} succeeded, so there is nothing to hold the plan against")


def differences(
    plan: Mapping[str, Any], names: Iterable[str], keywords: Mapping[str, Any], trace: Trace
) -> list[Difference]:
    """Returns what the plan is of and the trace is not: as in ``compare``, no fault, but to be known.

    Args:
        plan: As :func:`hftrace.analysis.plan.plans.plan_facts` gives it.
        names: What the model is called: as the user said it, and where it lies.
        keywords: Those that were planned with.
        trace: Of a load.
    """
    one = main_load_trace(trace)
    request, named = one.request, list(map(str, names))
    found = []
    theirs = [str(place) for key in ("model", "path") if (place := request.get(key)) is not None]
    if theirs and not {*theirs, *map(os.path.realpath, theirs)} & {*named, *map(os.path.realpath, named)}:
        found.append(Difference("model", _text(named[0]), _text(theirs[0])))
    loads = load_names(one)
    if loads and plan.get("class") and loads[0].class_name != plan["class"]:
        found.append(Difference("class", _text(plan["class"]), _text(loads[0].class_name)))
    measured = request.get("keywords")
    sides = [_by_name(keywords), _by_name(measured if isinstance(measured, Mapping) else {})]
    if request.get("revision") is not None:
        sides[1].setdefault("revision", _text(request["revision"]))
    for key in sorted({*sides[0], *sides[1]}):
        values = [side.get(key, NOT_GIVEN) for side in sides]
        if values[0] != values[1]:
            found.append(Difference(key, *values))
    for library in LIBRARIES:
        mine, other = (plan.get("versions") or {}).get(library), one.environment.get(library)
        if mine is not None and other is not None and mine != other:
            found.append(Difference(library, _text(mine), _text(other)))
    return found


def _by_name(keywords: Mapping[str, Any]) -> dict[str, str]:
    return {ALIKE.get(name, name): _text(value) for name, value in keywords.items()}


def _text(value: Any) -> str:
    """Returns a value as it is compared and shown, however it was given."""
    text = str(value).removeprefix("torch.")
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"


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
