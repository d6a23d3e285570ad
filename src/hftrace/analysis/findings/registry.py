"""Findings: what a load did that costs, with the evidence and what to change."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

from hftrace.analysis.findings.rules import COMPARED, CONCERNS, KINDS, RULES, Finding, FindingKind, Rule
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.once import once
from hftrace.analysis.time.phases import recorded_wall_ns
from hftrace.analysis.time.weights import checkpoint_bytes
from hftrace.schema.trace import Trace

__all__ = ["MODULES", "Finding", "FindingKind", "catalogue", "findings", "rules"]
MODULES = (
    "asked",
    "casts",
    "culprits",
    "files",
    "keywords",
    "memory",
    "prefixes",
    "recorder",
    "requests",
    "threads",
    "time",
    "verify",
    "weights",
)
"""Modules of this package with rules, each of which registers its own when it is imported."""


def rules() -> list[Rule]:
    """Returns all rules."""
    for module in MODULES:
        import_module(f"{__package__}.{module}")
    return RULES


def catalogue() -> list[FindingKind]:
    """Returns what the rules can find, by id."""
    rules()
    return sorted(KINDS)


@once
def findings(trace: Trace) -> list[Finding]:
    """Returns the findings of a trace: wrong ones before slow ones, the most expensive of each first.

    Time and memory are made comparable as shares: of the wall time, and of
    the peak memory or the checkpoint, whichever is larger.
    """
    wall = recorded_wall_ns(trace) or 1
    memory = max(memory_peaks(trace).rss_bytes or 0, checkpoint_bytes(trace) or 0) or 1
    found = [_with_concern(finding) for each in rules() for finding in each(trace)]

    def weight(finding: Finding) -> tuple[int, float]:
        return _place(finding.concerns), -max(
            (finding.cost_ns or 0) / wall, (finding.cost_bytes or 0) / memory
        )

    return sorted(found, key=weight)


def _with_concern(finding: Finding) -> Finding:
    concerns = finding.concerns or next(
        (kind.concerns for kind in KINDS if kind.name == finding.name), "other"
    )
    return replace(finding, concerns=concerns, view=finding.view or CONCERNS[concerns].view)


def _place(concerns: str) -> int:
    order = list(CONCERNS)
    return order.index(COMPARED[0] if concerns in COMPARED else concerns)
