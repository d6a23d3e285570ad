"""Findings: what a load did that costs, with the evidence and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hftrace import units
from hftrace.analysis.findings import memory, time, weights
from hftrace.analysis.findings.rules import RULES, Finding, is_number, rule
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.once import once
from hftrace.analysis.time.phases import recorded_wall_ns
from hftrace.analysis.time.weights import checkpoint_bytes
from hftrace.schema.model import Trace

__all__ = ["RULES", "Finding", "findings"]
REGISTERED = (memory, time, weights)
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


@rule
def recorder_trouble(trace: Trace) -> Iterator[Finding]:
    """What hftrace itself lost or got wrong: never hidden."""
    header = trace.header
    lost = header.get("lost")
    parts = [
        f"{count:,} {what}"
        for what, count in (lost.items() if isinstance(lost, dict) else ())
        if is_number(count)
    ]
    if parts:
        yield Finding(
            "H01",
            "lost-events",
            "This trace is incomplete",
            f"Not recorded: {', '.join(parts)}.",
            "Read sums in this trace as lower bounds.",
            internal=True,
        )
    errors = header.get("errors")
    if isinstance(errors, list) and errors:
        yield Finding(
            "H02",
            "hook-errors",
            f"{units.count(len(errors), 'error')} inside hftrace",
            f"The load was not affected, the trace may lack facts. First: {_first_line(errors[0])}",
            "Report it, with the output of hftrace doctor.",
            internal=True,
        )
    sampling = header.get("sampling")
    if isinstance(sampling, dict):
        asked, reached = sampling.get("rate_asked_hz"), sampling.get("rate_reached_hz")
        if asked and reached and is_number(asked) and is_number(reached) and reached < 0.5 * asked:
            yield Finding(
                "H03",
                "slow-sampling",
                "Memory was sampled less often than asked",
                f"{reached:.0f} samples a second instead of {asked:.0f}: short peaks may be missing from "
                "the curves; peaks of spans are exact.",
                "Give the sampler a free core.",
                internal=True,
            )


def _first_line(error: Any) -> str:
    text = str(error.get("message") or error) if isinstance(error, dict) else str(error)
    return (text.splitlines() or [""])[0][:200]
