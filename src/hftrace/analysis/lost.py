"""What a trace says it has lost: what was never recorded, and what was left out because it was damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hftrace.schema.trace import Trace

DAMAGED: dict[str, tuple[str, str]] = {
    "damaged_lines": ("line of the journal", "lines of the journal"),
    "damaged_facts": ("fact", "facts"),
}
"""Counts of what was left out because it was damaged, with their words."""
NAMES = "damaged"
"""Names of the facts that were left out."""


def lost_of(trace: Trace) -> Mapping[str, Any]:
    """Returns what the trace says."""
    said = trace.header.get("lost")
    return said if isinstance(said, Mapping) else {}


def is_damaged(trace: Trace) -> bool:
    """Says whether something was left out because it was damaged."""
    return any(lost_of(trace).get(name) for name in DAMAGED)


def damaged_facts(trace: Trace) -> list[str]:
    """Returns the names of the facts that were left out, such as ``request.keywords``; the first twenty."""
    names = lost_of(trace).get(NAMES)
    return [str(name) for name in names] if isinstance(names, list) else []


def stop_reason(trace: Trace) -> str | None:
    """Returns why the journal stopped before the session ended; None where it did not."""
    reason = lost_of(trace).get("reason")
    return reason.partition("\n")[0] if isinstance(reason, str) else None


def is_stopped(trace: Trace) -> bool:
    """Says whether the journal stopped before the session ended."""
    return stop_reason(trace) is not None


def unrecorded_loads(trace: Trace) -> dict[str, int]:
    """Returns by status how many outermost loads began and ended after the journal had stopped."""
    loads = lost_of(trace).get("loads")
    if not isinstance(loads, Mapping):
        return {}
    return {str(name): count for name, count in loads.items() if type(count) is int and count > 0}
