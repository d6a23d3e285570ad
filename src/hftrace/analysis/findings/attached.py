"""The rule about a recording that began in the middle of a load: what it cannot say of that one."""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.attached import UnderWay, under_way
from hftrace.analysis.findings.rules import Finding, rule
from hftrace.schema.trace import Trace

MAX_NAMED = 3


@rule(
    ("H07", "attached-midway", "Somebody attached in the middle of a load, of which there are no rows."),
    concerns="recorder",
    severity="warning",
    of_session=True,
)
def attached_midway(trace: Trace) -> Iterator[Finding]:
    """H07: loads that had begun before the recording."""
    found = under_way(trace)
    if not found:
        return
    whole, several = units.count(len(found), "load was", "loads were"), len(found) > 1
    yield Finding(
        "H07",
        "attached-midway",
        f"Attached in the middle of {f'{len(found)} loads' if several else 'a load'}",
        f"{whole} under way when the recording began: {'; '.join(map(_words, found[:MAX_NAMED]))}. "
        f"Nothing else is recorded of {'them' if several else 'it'}: no time, no row of any ledger.",
        "Take this trace for a look at where it stood. For a whole load, attach before it begins "
        "(--next-load).",
        internal=True,
        numbers={"loads": len(found), "ended": sum(load.ended is True for load in found)},
    )


def _words(load: UnderWay) -> str:
    words = load.function + (f", called at {load.caller}" if load.caller else "") + f", on {load.thread}"
    if load.at:
        words += f", which stood at {load.at}" + (f", {load.waits}" if load.waits else "")
    if load.ended is not None:
        words += ", and returned meanwhile" if load.ended else ", and had not returned at the end"
    return words
