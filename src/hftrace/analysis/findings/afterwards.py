"""Rules about what the program did to loaded tensors after their load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.as_loaded import rows_since
from hftrace.analysis.findings.rules import WORTH_BYTES, WORTH_NS, Finding, Fix, Where, first_few, rule
from hftrace.analysis.ledger.dtypes import CAST_DTYPES
from hftrace.analysis.ledger.tensors import FROM_CHECKPOINT
from hftrace.analysis.ledger.verification import verification
from hftrace.analysis.loader import loader_facts
from hftrace.analysis.time.session import parts
from hftrace.schema.trace import Trace

CASTING = frozenset({"to", "half", "float", "bfloat16", "double", "type"})
"""Methods of a module that cast it; ``to`` may also move it alone."""
BY = {
    "initializer": ("initialized-after-load", "initialised again after the load"),
    "emptied": ("initialized-after-load", "emptied after the load"),
    "written_in_place": ("written-after-load", "written in place after the load"),
    "replaced": ("written-after-load", "replaced after the load"),
}
"""By the evidence of what a tensor is now: the finding, and its words."""
NOW = {
    "initialized-after-load": "it is no longer there",
    "written-after-load": "what is there now was not seen to come from anywhere",
}
ADVICE = {
    "initialized-after-load": "Leave out what initialises them again (init_weights, "
    "apply(model._init_weights), reset_parameters), or do it before the weights are loaded.",
    "written-after-load": "Where that is not meant, look for what writes to them, or puts others there, "
    "after the load; --verify holds each tensor against the files.",
}
NAMED = 3


@rule(
    ("R41", "cast-after-load", "The program casts most of what was loaded, after its load."),
    concerns="time",
    severity="warning",
    of_session=True,
    at_end=True,
)
def cast_after_load(trace: Trace) -> Iterator[Finding]:
    """R41: a dtype that the load could have been asked for is made after it, with a second copy."""
    dtypes, sizes, keys = map(trace.at_return.column, ("dtype", "bytes", "keys"))
    now = trace.tensors.column("dtype")
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, later in rows_since(trace):
        if dtypes[row] != now[later] and {dtypes[row], now[later]} <= set(CAST_DTYPES):
            found[dtypes[row], now[later]].append(sizes[row] or 0)
    if not found:
        return
    (before, after), cast = max(found.items(), key=lambda item: sum(item[1]))
    # Of what came from files: tables that the model computes may be larger.
    loaded = sum(size or 0 for size, key in zip(sizes, keys, strict=True) if key)
    if sum(cast) <= 0.5 * loaded:
        return
    calls = [
        part for part in parts(trace) if part.kind == "surgery" and part.name.rpartition(".")[2] in CASTING
    ]
    # Of several calls nobody can say which has cast and which has only moved.
    by, spent = "", None
    if len(calls) == 1 and calls[0].times == 1:
        (call,) = calls
        spent = call.duration_ns
        place = f" at {call.place}" if call.place else ""
        by = f" by {call.name}{place}, in {units.duration(spent)}"
    yield Finding(
        "R41",
        "cast-after-load",
        f"loaded as {before}, cast to {after} afterwards",
        f"{units.count(len(cast), 'tensor')}, {units.byte_count(sum(cast))}, were cast after their load{by}: "
        "each tensor is there twice meanwhile.",
        f"Ask the load for it: {loader_facts(trace).dtype_keyword or 'torch_dtype'}=torch.{after}.",
        cost_ns=spent,
        cost_bytes=None if spent else sum(cast),
        view="timeline",
        severity="warning" if sum(cast) >= WORTH_BYTES or (spent or 0) >= WORTH_NS else "info",
        fix=Fix({loader_facts(trace).dtype_keyword or "torch_dtype": after}),
        numbers={"tensors": len(cast), "cast_bytes": sum(cast), "from": before, "to": after},
    )


@rule(
    (
        "R42",
        "initialized-after-load",
        "Weights came from the checkpoint, and were initialised again or emptied after their load.",
    ),
    (
        "R43",
        "written-after-load",
        "Weights came from the checkpoint, and code that is not hooked wrote to them, or put others in "
        "their place, after their load.",
        "warning",
    ),
    concerns="weights",
    severity="error",
    at_end=True,
)
def lost_after_load(trace: Trace) -> Iterator[Finding]:
    """R42, R43: weights that a load has placed, and that are no longer there."""
    was = trace.at_return.column("provenance")
    names, evidence, sizes = (trace.tensors.column(name) for name in ("name", "evidence", "bytes"))
    checked = verification(trace)
    # What was held against the files and differs is told by R38: one cause, one finding.
    told = frozenset(checked.different if checked is not None else ())
    lost: dict[str, list[int]] = defaultdict(list)
    for row, later in rows_since(trace):
        if was[row] in FROM_CHECKPOINT and evidence[later] in BY and later not in told:
            lost[evidence[later]].append(later)
    for how, rows in lost.items():
        name, words = BY[how]
        more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
        yield Finding(
            "R42" if name == "initialized-after-load" else "R43",
            name,
            f"{units.count(len(rows), 'tensor')} {words}",
            f"The load placed what the checkpoint has, and {NOW[name]}: "
            f"{', '.join(str(names[row]) for row in rows[:NAMED])}{more}.",
            ADVICE[name],
            cost_bytes=sum(sizes[row] or 0 for row in rows),
            view="tensors",
            numbers={"tensors": len(rows)},
            where=Where(tensors=first_few(names[row] for row in rows)),
        )
