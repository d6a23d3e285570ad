"""Findings: what a load did that costs, with the evidence and what to change."""

from __future__ import annotations

from hftrace.analysis.derived import Derived
from hftrace.analysis.findings import memory, recorder, time, weights
from hftrace.analysis.findings.rules import RULES, Finding
from hftrace.schema.model import Trace

__all__ = ["RULES", "Finding", "findings"]
REGISTERED = (memory, recorder, time, weights)
"""Each registers its rules when it is imported."""


def findings(trace: Trace | Derived) -> list[Finding]:
    """Returns the findings of a trace, the most expensive first.

    Time and memory are made comparable as shares: of the wall time, and of
    the peak memory or the checkpoint, whichever is larger.
    """
    derived = trace if isinstance(trace, Derived) else Derived(trace)
    wall = derived.wall_ns or 1
    memory = max(derived.peaks.rss_bytes or 0, derived.checkpoint_bytes or 0) or 1

    def weight(finding: Finding) -> tuple[bool, float]:
        return finding.internal, -max((finding.cost_ns or 0) / wall, (finding.cost_bytes or 0) / memory)

    return sorted((finding for each in RULES for finding in each(derived)), key=weight)
