"""Rules about what was done to loaded weights after their load."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import Finding, rule
from hftrace.analysis.ledger.tensors import FROM_CHECKPOINT
from hftrace.analysis.model_loads import model_loads
from hftrace.schema.trace import Trace

LOST = frozenset({"initialized", "uninitialized"})
NAMED = 3


@rule(
    (
        "R42",
        "initialized-after-load",
        "Weights came from the checkpoint, and were initialised again or emptied after their load.",
    ),
    concerns="weights",
    at_end=True,
)
def initialized_after_load(trace: Trace) -> Iterator[Finding]:
    """R42: weights that a load has placed, and that the program initialised again."""
    columns = ("load", "name", "provenance", "bytes")
    before = {
        (load, name)
        for load, name, provenance, _ in zip(*map(trace.at_return.column, columns), strict=True)
        if provenance in FROM_CHECKPOINT
    }
    lost = [
        (name, size or 0)
        for load, name, provenance, size in zip(*map(trace.tensors.column, columns), strict=True)
        if provenance in LOST and (load, name) in before
    ]
    if not lost:
        return
    by = dict.fromkeys(
        str(function)
        for load in model_loads(trace)
        for function in load.attributes.get("changed_by") or ()
        if "init" in str(function)
    )
    doer = f", by {', '.join(by)}" if by else ""
    names = ", ".join(str(name) for name, _ in lost[:NAMED])
    more = f" and {len(lost) - NAMED:,} more" if len(lost) > NAMED else ""
    yield Finding(
        "R42",
        "initialized-after-load",
        f"{units.count(len(lost), 'tensor')} initialised again after the load",
        f"They came from the checkpoint, and hold it no longer{doer}: {names}{more}.",
        "Leave out what initialises them again (init_weights, apply(model._init_weights), "
        "reset_parameters), or do it before the weights are loaded.",
        cost_bytes=sum(size for _, size in lost),
        view="tensors",
    )
