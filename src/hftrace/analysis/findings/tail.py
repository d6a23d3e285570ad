"""The rule about what a load does when all weights are in the model and nothing moves any more."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.rules import MOST_NAMED, Finding, Where, rule
from hftrace.analysis.model_loads import model_loads
from hftrace.analysis.time.spans import UNATTRIBUTED, span_index
from hftrace.schema.trace import Trace

LEAST_NS = 1_000_000_000
"""Less than a second after the last tensor is nobody's question."""
LEAST_SHARE = 0.1
LONG_NS = 5_000_000_000
"""Of a load, and what is long whatever its share: the bar of progress has read 100 % all that time."""
NO_NAME = "no function that is hooked"


@rule(
    ("R57", "silent-tail", "Much of a load comes after its last tensor is in the model."),
    concerns="time",
    severity="warning",
)
def silent_tail(trace: Trace) -> Iterator[Finding]:
    """R57: a load that goes on long after its last tensor has been placed."""
    placed = trace.tensors.column("placed_ns")
    index = span_index(trace)
    for load in model_loads(trace):
        row = index.row_of.get(load.span)
        if row is None or trace.spans.column("status")[row] != "ok":
            continue
        start, end = index.bounds(row)
        last = max((at for each in load.rows if (at := placed[each]) is not None and at <= end), default=None)
        if last is None or last < start:
            continue
        spent = end - last
        if spent < LEAST_NS or (spent <= LEAST_SHARE * (end - start) and spent <= LONG_NS):
            continue
        inside = _inside(trace, row, last)
        (name, phase, _), longest = max(inside.items(), key=lambda item: item[1])
        said = f"{units.duration(longest)} of it in {name}"
        if phase not in (UNATTRIBUTED, "load"):
            said += f" (phase {phase})"
        yield Finding(
            "R57",
            "silent-tail",
            f"{units.duration(spent)} after the last tensor was in the model",
            f"The last tensor was placed {units.duration(last - start)} into a load of "
            f"{units.duration(end - start)}; what follows moves no weights: {said}.",
            _advice(phase),
            cost_ns=spent,
            view="tree",
            numbers={"tail_ns": spent, "load_ns": end - start, "longest_ns": longest},
            where=Where(spans=[identity for _, _, identity in inside][:MOST_NAMED]),
        )


def _inside(trace: Trace, load_row: int, since: int) -> dict[tuple[str, str, int], int]:
    """Returns what a load's own thread spent since a moment, by function, phase and span."""
    index = span_index(trace)
    functions, names = trace.spans.column("function"), trace.spans.column("name")
    found: dict[tuple[str, str, int], int] = {}
    for start, end, row in index.exclusive([load_row]):
        if end > since:
            name = NO_NAME if row == load_row else str(functions[row] or names[row])
            key = (name, index.phases[row], index.ids[row])
            found[key] = found.get(key, 0) + end - max(start, since)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _advice(phase: str) -> str:
    if phase in ("quantize", "quantizer", "convert"):
        return (
            "Save the model as it is now with save_pretrained and load that: what is quantised or packed "
            "already is not done again. A newer version of the quantiser's package may be faster."
        )
    if phase == "collect":
        return "Call gc.freeze() before the load, with all imports done: see hftrace explain R09."
    return (
        "Look at what runs there: hftrace show TRACE --view tree --depth 0, or, for a function that is not "
        "hooked, py-spy dump --pid PID while it runs."
    )
