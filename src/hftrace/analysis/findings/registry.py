"""Findings: what a load did that costs, with the evidence and what to change."""

from __future__ import annotations

from hftrace.analysis.findings import memory, recorder, time, weights
from hftrace.analysis.findings.rules import RULES, Finding
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.once import once
from hftrace.analysis.time.phases import recorded_wall_ns
from hftrace.analysis.time.weights import checkpoint_bytes
from hftrace.schema.trace import Trace

__all__ = ["RULES", "Finding", "findings"]
REGISTERED = (memory, recorder, time, weights)
"""Each registers its rules when it is imported."""


@once
def findings(trace: Trace) -> list[Finding]:
    """Returns the findings of a trace, the most expensive first.

    Time and memory are made comparable as shares: of the wall time, and of
    the peak memory or the checkpoint, whichever is larger.
    """
    wall = recorded_wall_ns(trace) or 1
    memory = max(memory_peaks(trace).rss_bytes or 0, checkpoint_bytes(trace) or 0) or 1

    def weight(finding: Finding) -> tuple[bool, float]:
        return finding.internal, -max((finding.cost_ns or 0) / wall, (finding.cost_bytes or 0) / memory)

    return sorted((finding for each in RULES for finding in each(trace)), key=weight)
