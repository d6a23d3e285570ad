"""How the loads of a session ended, and what went on beside them, in words for the first screen."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hftrace import units
from hftrace.analysis.attached import under_way
from hftrace.analysis.children import unrecorded_children
from hftrace.analysis.lost import stop_reason, unrecorded_loads
from hftrace.analysis.time.instead import seen_instead
from hftrace.analysis.time.load_names import LoadTrace
from hftrace.analysis.time.session import session_bounds
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.whose import ended_load, failed_loads
from hftrace.analysis.values import natural, text
from hftrace.render.ranks import endings_words
from hftrace.render.text import clean, shorten
from hftrace.schema.trace import Trace

MAX_NAMES = 3
ERROR_COLUMNS = 140
TIMES = "\N{MULTIPLICATION SIGN}"
ENDED = {"ok": "that ended well", "error": "that failed", "interrupted": "that ended interrupted"}
STARTED = {"fork": "forked", "spawn": "spawned", "forkserver": "from a fork server", "program": "a program"}
"""How a child was started; one of which that is not known is left without a word."""


def outcome_facts(trace: Trace) -> Iterator[tuple[str, str]]:
    """Yields label and words of each fact about how loads ended and what went on beside them."""
    for label, words in (
        ("incomplete", incomplete_words(trace)),
        ("exit", exit_words(trace)),
        ("failed", failed_words(trace)),
        ("first", endings_words(trace)),
        ("instead", no_load_words(trace)),
        ("children", children_words(trace)),
    ):
        if words:
            yield label, words


def incomplete_words(trace: Trace) -> str:
    """Returns that the journal stopped, when, and what is known of the loads after that; else empty."""
    reason = stop_reason(trace)
    if reason is None:
        return ""
    bounds = session_bounds(trace)
    until = bounds.recorded_until_ns
    when = f" after {units.duration(until - bounds.start_ns)}" if until is not None else ""
    words = f"the journal stopped{when} ({shorten(clean(reason), ERROR_COLUMNS)})"
    if isinstance(trace, LoadTrace):
        return words
    statuses = [trace.spans.column("status")[row] for row in span_index(trace).load_rows]
    said = [
        f"{units.count(count, 'load')} {ENDED.get(status, 'that ended otherwise')}"
        for status, count in unrecorded_loads(trace).items()
    ]
    words += f"; not in this trace: {', '.join(said)}" if said else "; what came after that is not known"
    unknown = statuses.count("unknown")
    return words + (f"; how {units.count(unknown, 'load')} ended is not known" if unknown else "")


def failed_words(trace: Trace) -> str:
    """Returns which loads failed although the session went on; empty where none did."""
    ended_well = trace.outcome.get("status", "ok") == "ok"
    own = ended_load(trace)
    failed = [load for load in failed_loads(trace) if load.row != own and load.status != "killed"]
    if not failed or not (ended_well or "load" in trace.outcome):  # else it may be what ended the session
        return ""
    loads = len(span_index(trace).load_rows)
    kinds = Counter((load.name, load.model, load.status, load.error) for load in failed)
    said = []
    for (name, model, status, error), count in list(kinds.items())[:MAX_NAMES]:
        who = clean(name) + (f" of {shorten(clean(model), 40)}" if model else "")
        how = (
            clean(error)
            if error
            else "not finished when the recording ended"
            if status != "error"
            else status
        )
        said.append(f"{who}{_times(count)}: {shorten(how, ERROR_COLUMNS)}")
    more = len(kinds) - MAX_NAMES
    said += [f"{units.count(more, 'other kind')} of failure"] if more > 0 else []
    caught = ", caught by the program" if all(load.status == "error" for load in failed) else ""
    return f"{len(failed):,} of {units.count(loads, 'load')}{caught}; " + "; ".join(said)


def _times(count: int) -> str:
    return f" {TIMES} {count:,}" if count > 1 else ""


def exit_words(trace: Trace) -> str:
    """Returns the exit code of a program whose session was fine; empty where it is 0.

    Whether ``sys.exit`` or ``os._exit`` gave it is not recorded; words are those of ``sys.exit``.
    """
    code = natural(trace.outcome.get("exit_code"))
    if trace.outcome.get("status", "ok") != "ok" or not code:
        return ""
    message = text(trace.outcome.get("exit_message"))
    return f"with code {code}" + (f": {shorten(clean(message), ERROR_COLUMNS)}" if message else "")


def children_words(trace: Trace) -> str:
    """Returns the processes that were started and not recorded, where one may have loaded a model."""
    children = unrecorded_children(trace)
    if children is None or not children.matters:
        return ""
    said = []
    for (how, name), count in children.names.most_common(MAX_NAMES):
        what = " ".join(part for part in (STARTED.get(how, ""), clean(name) if name else "") if part)
        said.append((what or "one that is not known") + _times(count))
    more = len(children.names) - MAX_NAMES
    said += [f"{units.count(more, 'other kind')}"] if more > 0 else []
    words = f"{units.count(children.count, 'process', 'processes')} not recorded: {', '.join(said)}"
    words += f"; {children.alive:,} still running" if children.alive else ""
    return words + (f"; CPU {units.duration(children.cpu_ns)}" if children.cpu_ns else "")


def instead_words(facts: dict[str, Any]) -> str:
    """Returns what :func:`~hftrace.analysis.time.instead.seen_instead` found, in words."""
    said = [
        f"{units.count(count, 'span')} of phase {clean(str(phase))}"
        for phase, count in facts["spans"].items()
    ]
    imported = facts["loaders"] or facts["imported"]
    if imported:
        names = ", ".join(map(clean, imported[:MAX_NAMES]))
        more = len(facts["imported"]) - len(imported[:MAX_NAMES])
        said.append(f"imports of {names}" + (f" and {more:,} more" if more > 0 else ""))
    if facts["mapped"]:
        names = ", ".join(clean(os.path.basename(path)) for path in facts["mapped"][:MAX_NAMES])
        more = len(facts["mapped"]) - MAX_NAMES
        said.append(f"mapped {names}" + (f" and {more:,} more" if more > 0 else ""))
    if facts["files"]:
        said.append(f"{units.count(facts['files'], 'file')} asked for")
    if facts["storage_read_bytes"]:
        said.append(f"{units.byte_count(facts['storage_read_bytes'])} read from storage")
    children = facts["children"]
    if children:
        said.append(f"{units.count(children['count'], 'process', 'processes')} started and not recorded")
    return ", ".join(said)


def no_load_words(trace: Trace) -> str:
    """Returns what a session did that has no load in it; empty where it has one, or cannot say."""
    if span_index(trace).load_rows or "surroundings" not in trace.header:
        return ""
    seen = instead_words(seen_instead(trace))
    if under_way(trace):
        return "a load that had begun before the recording" + (f"; {seen}" if seen else "")
    return seen or "nothing that hftrace sees"
