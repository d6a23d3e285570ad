"""What the screen says where there are no findings: the claim, or what is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hftrace import units
from hftrace.analysis.findings.silence import Reason, doubts
from hftrace.analysis.time.session import Part
from hftrace.render.session import part_words
from hftrace.render.text import GOOD, PLAIN, WARN, Line, clean, wrap
from hftrace.schema.trace import Trace

Facts = dict[str, Any]


def _mostly(facts: Facts) -> str:
    """Returns what most of the time outside of loads went into, where more than half of it is one part."""
    part = Part(**facts["largest"]) if facts.get("largest") else None
    if part is None or part.duration_ns * 2 < facts["outside_ns"] or (part.after or part.name) in (None, ""):
        return ""
    return f", {units.duration(part.duration_ns)} of it in {part_words(part)}"


_WORDS: dict[str, Callable[[Facts], str]] = {
    "ended": lambda facts: f"This did not end well ({facts['status']}): what was not reached is not known.",
    "block-raised": lambda facts: (
        f"The block ended with {facts['error']}: what it was about to do is not in this trace."
    ),
    "exited": lambda facts: (
        f"The program ended itself with exit code {facts['code']}: what it was about to do is not known."
    ),
    "no-load": lambda facts: (
        "No load was recorded"
        + (f" in {units.duration(facts['wall_ns'])}" if facts.get("wall_ns") else "")
        + ": nothing can be said about one."
    ),
    "children": lambda facts: (
        f"{units.count(facts['count'], 'process', 'processes')} that this one started "
        f"{'was' if facts['count'] == 1 else 'were'} not recorded: what they load is not in this trace."
    ),
    "failed-load": lambda facts: (
        f"{facts['failed']:,} of {units.count(facts['loads'], 'load')} failed: "
        f"what {'it' if facts['failed'] == 1 else 'they'} would have cost is not known."
    ),
    "incomplete": lambda facts: "This trace is incomplete: what it lacks is not known.",
    "unrecognised": lambda facts: (
        "The loader of this transformers is not known to hftrace: some of what it does is not seen."
    ),
    "overlapping": lambda facts: (
        f"{facts['loads']:,} loads ran at the same time in one process, which transformers is not made for."
    ),
    "requests": lambda facts: f"{units.count(facts['failed'], 'request')} failed.",
    "hidden": lambda facts: (
        f"{units.count(facts['findings'], 'finding')} {'is' if facts['findings'] == 1 else 'are'} left out, "
        "as --select, --ignore or --severity asks."
    ),
    "one-load": lambda facts: (
        f"No findings about load {facts['load']}; what the rest of the session cost is not looked at here."
    ),
    "outside": lambda facts: (
        f"No findings in the loads; {units.duration(facts['outside_ns'])} of "
        f"{units.duration(facts['wall_ns'])} lie outside of any load{_mostly(facts)}."
    ),
}


def silence_lines(trace: Trace, width: int) -> Iterable[Line]:
    """Returns the claim that nothing costs more than it should, or the first reason why it is not made."""
    reasons = doubts(trace)
    if not reasons:
        yield [("No findings: ", GOOD), ("nothing here costs more than it should.", PLAIN)]
        return
    for part in wrap(clean(silence_words(reasons[0])), width):
        yield [(part, WARN)]


def silence_words(reason: Reason) -> str:
    """Returns a reason as one sentence."""
    return _WORDS[reason.kind](reason.facts)
