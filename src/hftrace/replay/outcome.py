"""How a run ended, as far as its journals say: the status, and what was going on last."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hftrace.replay.events import ModuleCopy, Move, Placement, Read
from hftrace.replay.nesting import roots
from hftrace.replay.reader import OpenedSpan, Process
from hftrace.schema import lines
from hftrace.schema.model import Tensor


def outcome_of(
    processes: list[Process], given: Mapping[str, Any] | None, *, is_program: bool = False
) -> dict[str, Any]:
    """Returns the block ``outcome`` of a trace.

    Args:
        processes: What each process wrote.
        given: What someone saw who watched; wins over the journals.
        is_program: Whether the first of them is a program and the others are its children: how it ended is
            how all of it did. Where it left with an exit code nobody has killed it, stopped or not.
    """
    if is_program:
        processes = processes[:1]
    result: dict[str, Any] = {
        "status": "ok" if all(process.stopped for process in processes) else "killed",
        "error": None,
        "signal": None,
        "exit_code": None,
        "last_phase": None,
        "last_tensor": None,
        "last_file": None,
        "memory_at_death_bytes": None,
    }
    for process in processes:
        for fact in process.facts.get("outcome", []):
            result.update(fact)
    known = {key: value for key, value in (given or {}).items() if value is not None or key == "load"}
    result.update(known)
    if is_program and result["status"] == "killed":
        result["status"] = _status_of_program(processes[0], result)
    return result


def _status_of_program(process: Process, seen: Mapping[str, Any]) -> str:
    """Returns how a program ended that its recorder calls killed, or a signal has ended."""
    told = {}
    for fact in process.facts.get("outcome", []):
        told.update(fact)
    if seen["signal"] == "SIGINT" and told.get("status") == "interrupted":
        return "interrupted"  # Python ends itself by it after a Ctrl-C that nobody has caught
    if seen["signal"] is None and seen["exit_code"] is not None:
        return "ok"  # it has left by os._exit
    return "killed"


def last_activity(process: Process, base: int, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Says what a process that did not end well was doing: innermost open span, last tensor, last file.

    Args:
        process: What it wrote; what is open has no end yet.
        base: The trace's clock base, a raw clock reading.
        outcome: What is known of its end. Where that says which load the exception left, it is about
            that one alone; another one may have failed before, and been caught.
    """
    known = outcome.get("load") or outcome.get("span")
    if process.journal_stopped is not None:
        # What is open, or came last, was so when the journal stopped: not when the process ended.
        return {"died_in": None}
    if "load" in outcome and known is None:
        return {"died_in": None}  # it was raised outside of all that was recorded
    failed = [span for span in process.spans.values() if span.status in ("error", "interrupted")]
    unfinished = [span for span in process.spans.values() if span.end is None]
    left = process.spans.get(known or -1)
    below = roots(process.spans)
    if left is not None:
        failed = [span for span in failed if below[span.id] == left.id]
        unfinished = []
    elif outcome["status"] == "killed":
        failed = []  # the program went on after that
    # The spans that have no end, or that an exception left last. A load that is open is what it died in,
    # whatever another thread was doing.
    open_loads = [span for span in unfinished if process.spans[below[span.id]].phase == "load"]
    deepest = max(
        open_loads or unfinished or failed,
        key=lambda span: (span.end or process.last_time, span.start, span.id),
        default=None,
    )
    if not unfinished and failed:
        # The exception rose from the span that began last and failed first.
        deepest = max(failed, key=lambda span: (span.start, span.id))
    activity: dict[str, Any] = {"died_in": None}
    if outcome["status"] == "killed" and not open_loads:
        activity["load"] = None  # each load was over, or none had begun
    if deepest is None:
        return activity
    activity |= {
        "died_in": deepest.name,
        "last_phase": deepest.phase if deepest.phase != "load" else None,
    }
    above: OpenedSpan | None = deepest
    while above is not None:
        if activity.get("last_phase") is None and above.phase != "load":
            activity["last_phase"] = above.phase
        if "file" in above.attributes:
            activity["last_file"] = above.attributes["file"]
            break
        above = process.spans.get(above.parent) if above.parent is not None else None
    root = process.spans[below[deepest.id]]
    if root.phase == "load":
        activity["load"] = root.id
    elif "load" in outcome or "load" in activity:
        return activity  # of a step, or a change to a model, say: no tensor was being loaded
    time_ns, activity["last_tensor"] = _last_tensor(process, root if root.phase == "load" else None)
    if activity["last_tensor"] is not None:
        activity["last_tensor_ns"] = time_ns - base
    return activity


def open_reads(process: Process, base: int) -> list[dict[str, Any]]:
    """Returns the tensors whose read had begun and not ended when a process died: key, thread, since when.

    Args:
        process: What it wrote.
        base: The trace's clock base, a raw clock reading.
    """
    looks = process.facts.get("reading")
    if not looks:
        return []
    slices: dict[int, str] = {}
    for line in process.lines_of(lines.Slices):
        slices.update(line.keys())
    latest: dict[int, int] = {}
    for read in process.events_of(Read):
        latest[read.thread] = max(read.start, latest.get(read.thread, 0))
    found = []
    for entry in looks[-1].get("open") or ():
        thread, identity, started = entry
        # A thread that has ended this read, or begun another, is done with it.
        if identity in slices and latest.get(thread, -1) < started:
            found.append({"tensor": slices[identity], "thread": thread, "since_ns": started - base})
    return found


def _last_tensor(process: Process, load: OpenedSpan | None) -> tuple[int, str | None]:
    """Returns when the last tensor was done, and its name, key or module's prefix; None if unknown.

    Args:
        process: What it wrote.
        load: The load that it is asked of; None for all of them.
    """
    below = roots(process.spans)
    slices: dict[int, str] = {}
    for line in process.lines_of(lines.Slices):
        if load is None or below.get(line.span) == load.id:
            slices.update(line.keys())
    named: list[tuple[int, int, str | None]] = [
        *((read.end, read.thread, slices.get(read.slice_id)) for read in process.events_of(Read)),
        *((place.end, place.thread, place.name) for place in process.events_of(Placement)),
        # A module without a name is the whole model, or in 4.50 the one whose tensor has just been named.
        *((copy.end, copy.thread, copy.prefix) for copy in process.events_of(ModuleCopy)),
        *((move.end, move.thread, move.name) for move in process.events_of(Move)),
    ]
    known = [(end, thread, name) for end, thread, name in named if isinstance(name, str) and name]
    if load is not None:
        # What another load's own thread does meanwhile is not this one's.
        others = {span.thread for span in process.spans.values() if span.phase == "load" and not span.parent}
        until = process.last_time if load.end is None else load.end
        known = [
            (end, thread, name)
            for end, thread, name in known
            if load.start <= end <= until and (thread == load.thread or thread not in others)
        ]
    time_ns, _, last = max(known, key=_when, default=(-1, 0, None))
    return time_ns, last


def _when(event: tuple[int, int, str | None]) -> int:
    return event[0]


_COMMIT = re.compile(r"[\\/]models--([^\\/]+)[\\/]snapshots[\\/]([0-9a-f]{40})[\\/]")


def commit_of(process: Process, model: str) -> str | None:
    """Returns the commit that the model's files were taken from: the cache keeps them under its name."""
    for line in process.lines_of(lines.File):
        match = _COMMIT.search(str(line.facts.get("path") or ""))
        if match and match[1] == model.replace("/", "--"):
            return match[2]
    return None


def file_of(name: str | None, tensors: list[Tensor]) -> str | None:
    """Returns the file of a tensor, by its name or its checkpoint key.

    To 4.50 the loader may go by module: ``layers.0.mlp.`` stands for the tensors of that module.
    """
    if name is None:
        return None
    if not name.endswith("."):
        return next((row.file for row in tensors if row.name == name or name in row.keys), None)
    keys = [(f".{key}", row.file) for row in tensors for key in (row.name, *row.keys) if key]
    own = (file for key, file in keys if f"{key.rpartition('.')[0]}.".endswith(f".{name}"))
    # A module that only holds others, an activation: the tensors below it, else what was placed last.
    below = (file for key, file in keys if f".{name}" in key)
    placed = max((row for row in tensors if row.placed_ns is not None), key=_placed, default=None)
    return next(own, None) or next(below, None) or (placed.file if placed is not None else None)


def _placed(row: Tensor) -> int:
    return row.placed_ns or 0
