"""Findings: what a load did that costs, with the evidence and what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.findings.rules import (
    AT_END,
    COMPARED,
    CONCERNS,
    KINDS,
    OF_SESSION,
    RULES,
    Finding,
    FindingKind,
    Rule,
    listed_under,
)
from hftrace.analysis.memory.peaks import memory_peaks
from hftrace.analysis.once import once
from hftrace.analysis.time.load_names import LoadTrace, describe_load, load_names
from hftrace.analysis.time.loads import load_traces, unplaced_rows
from hftrace.analysis.time.phases import recorded_wall_ns
from hftrace.analysis.time.weights import checkpoint_bytes
from hftrace.schema.trace import Trace

__all__ = ["MODULES", "Finding", "FindingKind", "all_findings", "catalogue", "findings", "rules", "show_only"]
MODULES = (
    "afterwards",
    "asked",
    "attached",
    "casts",
    "code",
    "culprits",
    "devices",
    "files",
    "imports",
    "keywords",
    "memory",
    "merges",
    "offload",
    "prefixes",
    "reading",
    "quantised",
    "ranks",
    "recorder",
    "redundant",
    "requests",
    "session",
    "tail",
    "threads",
    "time",
    "tiny",
    "values",
    "verify",
    "waiting",
    "weights",
)
"""Modules of this package with rules, each of which registers its own when it is imported."""

AMONG_ALIKE = {"overlapping-loads": 0, "unused-keys": 2}
"""Of one concern, the cause stands before what follows from it: 0 before all others, 2 behind them."""


def rules() -> list[Rule]:
    """Returns all rules."""
    for module in MODULES:
        import_module(f"{__package__}.{module}")
    return RULES


def catalogue() -> list[FindingKind]:
    """Returns what the rules can find, by id."""
    rules()
    return sorted(KINDS)


_WANTED = "_wanted_findings"
"""The attribute of a trace that says which of its findings are wanted."""


def findings(trace: Trace) -> list[Finding]:
    """Returns the findings of a trace that are wanted: all of them where nobody has chosen."""
    wanted: Callable[[Finding], bool] | None = trace.__dict__.get(_WANTED)
    found = all_findings(trace)
    return found if wanted is None else [finding for finding in found if wanted(finding)]


def show_only(trace: Trace, wanted: Callable[[Finding], bool]) -> None:
    """Lets :func:`findings` return some of them alone; see :mod:`hftrace.analysis.findings.choice`."""
    trace.__dict__[_WANTED] = wanted


@once
def all_findings(trace: Trace) -> list[Finding]:
    """Returns all findings of a trace: wrong ones before slow ones, the most expensive of each first.

    Time and memory are made comparable as shares: of the wall time, and of
    the peak memory or the checkpoint, whichever is larger.
    """
    wall = recorded_wall_ns(trace) or 1
    memory = max(memory_peaks(trace).rss_bytes or 0, checkpoint_bytes(trace) or 0) or 1
    found = [_completed(finding) for finding in _found(trace)]

    def weight(finding: Finding) -> tuple[int, int, float]:
        cost = max((finding.cost_ns or 0) / wall, (finding.cost_bytes or 0) / memory)
        return _place(listed_under(finding)), AMONG_ALIKE.get(finding.name, 1), -cost

    return sorted(found, key=weight)


def _found(trace: Trace) -> Iterator[Finding]:
    """Yields what the rules find: those about a load are asked about each one for itself."""
    loads = load_traces(trace)
    if len(loads) == 1 or unplaced_rows(trace):
        # An old trace may have tensors that fit no load of several: they are in the findings all the same.
        names = load_names(trace)
        load = names[0].span if len(names) == 1 else None
        for each in rules():
            whole = each in OF_SESSION
            own = trace if whole or len(loads) > 1 else loads[0]
            yield from (
                finding if whole else replace(finding, load=load) for finding in each(_seen(own, each))
            )
        return
    for each in rules():
        if each in OF_SESSION:
            yield from each(_seen(trace, each))
            continue
        for load_trace in loads:
            for finding in each(_seen(load_trace, each)):
                yield _of_load(finding, load_trace)


def _seen(trace: Trace, rule: Rule) -> Trace:
    """Returns the trace that a rule looks at: what was done to a model later is nothing that its load did."""
    return trace if rule in AT_END else as_loaded(trace)


def _of_load(finding: Finding, trace: Trace) -> Finding:
    """Returns a finding that says which of several loads it is of."""
    assert isinstance(trace, LoadTrace)
    name = load_names(trace)[0]
    return replace(
        finding,
        title=f"load {name.number}: {finding.title}",
        evidence=f"Load {name.number} is {describe_load(name)}. {finding.evidence}",
        load=name.span,
    )


def _completed(finding: Finding) -> Finding:
    """Returns a finding with what its kind was registered with, where it says nothing itself."""
    kind = next((kind for kind in KINDS if kind.name == finding.name), None)
    concerns = finding.concerns or (kind.concerns if kind is not None else "other")
    return replace(
        finding,
        concerns=concerns,
        view=finding.view or CONCERNS[concerns].view,
        severity=finding.severity or (kind.severity if kind is not None else "warning"),
    )


def _place(concerns: str) -> int:
    order = list(CONCERNS)
    return order.index(COMPARED[0] if concerns in COMPARED else concerns)
