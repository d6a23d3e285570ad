"""Rules about what a session spends outside of its loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hftrace import units
from hftrace.analysis.attached import is_attached
from hftrace.analysis.findings.afterwards import CASTING
from hftrace.analysis.findings.rules import Finding, rule
from hftrace.analysis.time.session import (
    OUTSIDE,
    OWN,
    UNRECORDED,
    Part,
    imports_in_parts,
    inside_ns,
    parts,
    session_bounds,
    session_wall_ns,
)
from hftrace.schema.trace import Trace

RESIZE = "resize_token_embeddings"
MOVING = CASTING | {"cpu", "cuda"}
"""Methods whose work a load can do itself."""
LEAST_NS = 1_000_000_000
"""Less time than this is nobody's question."""
LEAST_RESIZE_NS = 100_000_000
MOST = 0.5
MAX_PARTS = 3


def _resizes(trace: Trace) -> list[Part]:
    """Returns the calls of ``resize_token_embeddings`` that took longer than their loads are worth."""
    found = [part for part in parts(trace) if part.kind == "surgery" and part.name.endswith(f".{RESIZE}")]
    spent = sum(part.duration_ns for part in found)
    worth = spent >= LEAST_NS or (spent >= LEAST_RESIZE_NS and spent > inside_ns(trace))
    return found if worth else []


@rule(
    ("R40", "slow-resize", "resize_token_embeddings after a load takes long, mostly to draw the new rows."),
    concerns="time",
    severity="warning",
    of_session=True,
)
def slow_resize(trace: Trace) -> Iterator[Finding]:
    """R40: resizing the embeddings costs more than loading the model."""
    found = _resizes(trace)
    if not found:
        return
    spent = sum(part.duration_ns for part in found)
    where = ", ".join(dict.fromkeys(part.place for part in found if part.place))
    yield Finding(
        "R40",
        "slow-resize",
        f"{RESIZE} takes {units.duration(spent)}",
        f"{units.share(spent / session_wall_ns(trace))} of the session, against "
        f"{units.duration(inside_ns(trace))} in loads" + (f"; called at {where}." if where else "."),
        "Pass mean_resizing=False where the new rows will be trained or are never used: from 4.46 on "
        "transformers computes mean and covariance of all old rows to draw them from. Or resize once, and "
        "save the model.",
        cost_ns=spent,
        view="timeline",
        severity="warning" if spent >= LEAST_NS else "info",
        numbers={
            "spent_ns": spent,
            "loads_ns": inside_ns(trace),
            "calls": sum(part.times for part in found),
        },
    )


@rule(
    ("R39", "outside-dominates", "Most of the session lies outside of the loads, and not in imports."),
    concerns="time",
    severity="info",
    of_session=True,
)
def outside_dominates(trace: Trace) -> Iterator[Finding]:
    """R39: most of the time is spent by the caller's own code."""
    served = [part for part in parts(trace) if part.last] if trace.header.get("command") == "run" else []
    # What a program does when all is loaded, to serve or to train, is what it was started for.
    wall = session_wall_ns(trace) - sum(part.duration_ns for part in served)
    found = [
        part
        for part in parts(trace)
        if part.kind not in ("import", OWN, UNRECORDED) and part not in (*_resizes(trace), *served)
    ]
    own = sorted(map(_without_imports(trace), found), key=lambda part: -part.duration_ns)
    if not session_bounds(trace).known or trace.header.get("command") == "load" or not own:
        return
    if is_attached(trace):
        return  # what a process does that ran already, somebody knows who has come to look at it
    if trace.outcome.get("status", "ok") != "ok":
        return  # the share of what was cut short says nothing
    spent = (
        wall
        - inside_ns(trace)
        - sum(part.duration_ns for part in parts(trace) if part not in (*found, *served))
        - sum(before.duration_ns for before in found)
        + sum(after.duration_ns for after in own)
    )
    if spent < LEAST_NS or spent <= MOST * wall or own[0].duration_ns < LEAST_NS / 10:
        return
    words = "; ".join(f"{units.duration(part.duration_ns)} {_name(part)}" for part in own[:MAX_PARTS])
    yield Finding(
        "R39",
        "outside-dominates",
        f"{units.share(spent / wall)} of the session lie outside of loads",
        f"{units.duration(spent)} of {units.duration(wall)} are neither loads nor imports: {words}.",
        _advice(own[0]),
        cost_ns=spent,
        view="timeline",
        numbers={"outside_ns": spent, "session_ns": wall},
    )


def _without_imports(trace: Trace) -> Callable[[Part], Part]:
    """Returns a function that takes the imports out of a part: R05 is about these."""
    imports = imports_in_parts(trace)

    def without(part: Part) -> Part:
        spent = imports.get((part.kind, part.name, part.after), 0)
        return part._replace(duration_ns=max(0, part.duration_ns - spent))

    return without


def _name(part: Part) -> str:
    if part.kind == OUTSIDE:
        return f"from {part.place or 'an unknown place'} to {part.until or 'an unknown place'}"
    name = f"in step {part.name}" if part.kind == "step" else f"in {part.name}"
    return f"{name} at {part.place}" if part.place else name


def _advice(part: Part) -> str:
    """Returns what to do about the largest part."""
    if part.kind == "surgery" and part.name.endswith(".compile"):
        return (
            "torch.compile imports its compiler when called, and compiles when the model is called first: "
            "leave it out where a process starts often and runs briefly."
        )
    if part.kind == "surgery" and part.name.rpartition(".")[2] in MOVING:
        return (
            f"Look at {part.name.rpartition('.')[2]} first: what the model is moved or cast to may be asked "
            "of from_pretrained itself (device_map, dtype)."
        )
    if part.kind == OUTSIDE:
        end = " Where the program serves or trains there, let the block end before." if part.last else ""
        return (
            "No option of a load helps here: look at the code between the two lines, and name its parts "
            f"with hftrace.step(...).{end}"
        )
    return f"No option of a load helps here: look at {_name(part).removeprefix('in ')}."
