"""The session in words: how long it took, what of it were loads, and the largest parts outside of them."""

from __future__ import annotations

from hftrace import units
from hftrace.analysis.attached import under_way
from hftrace.analysis.findings.silence import doubts
from hftrace.analysis.time.phases import attributed_share, phase_times
from hftrace.analysis.time.session import (
    OUTSIDE,
    OWN,
    UNRECORDED,
    Inside,
    Part,
    inside_ns,
    parts,
    session_attributed,
    session_bounds,
    session_wall_ns,
)
from hftrace.analysis.time.spans import span_index
from hftrace.render.text import TIMES
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import AFTER_LOAD

LEAST_SHARE = 0.005
"""Time outside of all spans that is less of the session than this is not worth a word."""
WORTH_A_NAME = 0.02
"""The same for a part that is named on the first screen."""
MAX_PARTS = 3
AFTER = (*AFTER_LOAD, "tokenizer", "tokenize")
"""What ``hftrace load`` does after the load."""
AFTER_IN_PROGRAM = ("touch", "verify", "release")
"""What hftrace does in a program, where ``generate`` and ``forward`` are the program's own."""
MOST = 0.5
"""A stretch that is this much of the step that it lies in is named with the step."""


def place_words(place: str | None) -> str:
    """Returns where the caller's code was, as ``service.py:12``, which is how a person looks for it."""
    if place is None:
        return "?"
    return place.replace("\\", "/").rpartition("/")[2]


def stretch_words(
    after: str | None, before: str | None, last: bool, command: str | None = None, whole: str | None = None
) -> str:
    """Returns what a stretch between two places is called.

    Args:
        after: Where the caller's code was when it began.
        before: The same when it ended.
        last: Whether what it lies in ended with it.
        command: What recorded it: all that runs around a load of ``hftrace load`` is hftrace's own.
        whole: What it lies in, where that is not all that was recorded: a ``step``.
    """
    if command == "load":
        return "the interpreter and hftrace"
    whole = whole or {"run": "program", "attach": "recording"}.get(str(command), "block")
    start = place_words(after)
    if last:
        return f"{start} → end of the {whole}" if after is not None else f"until the end of the {whole}"
    end = place_words(before)
    if after is None:
        return f"before {end}" if before is not None else "an unknown place"
    if before is None:
        return f"after {start}"
    same_file = after.rpartition(":")[0] == before.rpartition(":")[0]
    return f"{start} → {end.rpartition(':')[2] if same_file else end}"


def part_words(part: Part, command: str | None = None) -> str:
    """Returns what a part of a session outside of loads is called, and where in the caller's code it is."""
    if part.kind == OUTSIDE:
        words = stretch_words(part.after, part.before, part.last, command)
    elif part.kind == UNRECORDED:
        words = "not recorded: the journal had stopped"
    elif part.kind == OWN:
        words = "hftrace itself, which writes down what the loads left"
    else:
        name = f"step {part.name}" if part.kind == "step" else part.name
        words = f"{name} ({place_words(part.after)})" if part.after is not None else name
    if part.times > 1:
        words += f" {TIMES} {part.times:,}"
    if part.status == "unknown":
        return f"{words}, whose end was not recorded"
    return words if part.status == "ok" else f"{words}, which failed"


def inside_words(part: Inside) -> str:
    """Returns what a stretch in a step is called."""
    words = stretch_words(part.after, part.before, part.last, whole="step")
    return f"{words} {TIMES} {part.times:,}" if part.times > 1 else words


def took_words(trace: Trace) -> str:
    """Returns the wall time of the session and what it went into; how much of it has a name."""
    wall = session_wall_ns(trace)
    text = units.duration(wall)
    if session_bounds(trace).known and trace.header.get("command") != "load":
        text += f", {units.share(session_attributed(trace), precise=True)} of it by name"
    follow = AFTER if trace.header.get("command") == "load" else AFTER_IN_PROGRAM
    spent: dict[str, int] = {}
    for part in parts(trace):
        kind = "after" if part.kind in follow else part.kind
        spent[kind] = spent.get(kind, 0) + part.duration_ns
    loads = len(span_index(trace).load_rows)
    # Parts outside of loads are added up, and ranks and processes do theirs at the same time.
    lanes = span_index(trace).lanes
    several = "processes" if len({(lane.rank, lane.pid) for lane in lanes}) > 1 else ""
    several = "ranks" if len({lane.rank for lane in lanes}) > 1 else several
    added = f" over all {several}" if several else ""
    words = []
    if before := spent.pop("import", 0):
        words.append(f"imports{_where_imports(trace, before)} {units.duration(before)}{added}")
    named = ""
    # What one load shows is no claim on the session, but its own phases are known.
    known = all(reason.kind in ("one-load", "hidden") for reason in doubts(trace))
    if attributed_share(trace) is not None and known:
        named = f"{units.share(attributed_share(trace), precise=True)} in named phases"
    if loads:
        name = "load" if loads == 1 else units.count(loads, "load")
        words.append(f"{name} {units.duration(inside_ns(trace))}" + (f" ({named})" if named else ""))
    for kind, name in (("surgery", "changes to the model"), ("save", "saving"), ("step", "steps")):
        if kind in spent:
            words.append(f"{name} {units.duration(spent.pop(kind))}{added}")
    if after := spent.pop("after", 0):
        words.append(f"{units.duration(after)} after it")
    own = spent.pop(OWN, 0)
    outside = spent.pop(OUTSIDE, 0)
    words += [f"{kind} {units.duration(time)}{added}" for kind, time in spent.items()]
    if outside >= LEAST_SHARE * wall:
        also = ", or in a load that had begun before," if under_way(trace) else ""
        words.append(f"outside of these{also} {units.duration(outside)}")
    if own >= LEAST_SHARE * wall:
        words.append(f"hftrace itself {units.duration(own)}")
    if len(words) > 1:
        return f"{text}: {', '.join(words)}"
    return f"{text}; {named}" if named else text


def _where_imports(trace: Trace, outside_ns: int) -> str:
    """Returns where imports outside of loads were, where there are others: a bar has them all, as one."""
    index = span_index(trace)
    loads = index.load_rows
    if not loads or phase_times(trace).get("import", 0) <= outside_ns:
        return ""
    if len(loads) > 1:
        return " outside of loads"
    begins = index.starts[loads[0]]
    imports = [row for row in index.process_roots if index.phases[row] == "import"]
    return " before the load" if all(index.ends[row] <= begins for row in imports) else " outside of the load"


def outside_words(trace: Trace) -> str:
    """Returns the largest parts outside of loads by name; nothing where they are hftrace's own, or small."""
    command = trace.header.get("command")
    if command == "load" or not session_bounds(trace).known:
        return ""
    wall = session_wall_ns(trace)
    found = [part for part in parts(trace) if part.duration_ns > 0 and part.kind != UNRECORDED]
    large = [part for part in found if part.duration_ns >= WORTH_A_NAME * wall][:MAX_PARTS]
    words = [
        f"{units.duration(part.duration_ns)} {part_words(part, command)}{_mostly(part)}" for part in large
    ]
    rest = found[len(large) :]
    left = sum(part.duration_ns for part in rest)
    if large and left >= WORTH_A_NAME * wall:
        # All that the view has besides these, so that the number is found again there.
        words.append(f"{units.count(len(rest), 'shorter part')}, {units.duration(left)}: --view timeline")
    return "; ".join(words)


def _mostly(part: Part) -> str:
    """Returns where most of a step lies, if that is known better than by its name."""
    if not part.inside or part.inside[0].duration_ns < MOST * part.duration_ns:
        return ""
    return f", {units.duration(part.inside[0].duration_ns)} of it {inside_words(part.inside[0])}"
