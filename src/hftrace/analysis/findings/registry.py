"""Findings: what a load did that costs, with the evidence and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hftrace.analysis.derived import Derived
from hftrace.analysis.findings import memory, time, weights
from hftrace.analysis.findings.rules import RULES, Finding, is_number, plural, rule
from hftrace.schema.trace import Trace

__all__ = ["RULES", "Finding", "findings"]
REGISTERED = (memory, time, weights)
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


@rule
def recorder_trouble(derived: Derived) -> Iterator[Finding]:
    """What hftrace itself lost or got wrong: never hidden."""
    header = derived.trace.header
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
            f"{plural(len(errors), 'error')} inside hftrace",
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
