"""What a trace's header says of the session, and of what the recorders have lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hftrace.replay.reader import Process
from hftrace.schema import journal


def session_facts(
    processes: list[Process], base: int, header: Mapping[str, Any], *, from_start: bool, seen_ns: int = 0
) -> dict[str, Any]:
    """Returns when the session began and ended, and where in the caller's code; its wall time.

    Args:
        processes: Those of the trace; the first one's session is the trace's.
        base: The trace's clock base.
        header: What the caller knows beyond the journals.
        from_start: The base is where it began.
        seen_ns: When the sampler saw one of them last; a raw clock reading.
    """
    facts: dict[str, Any] = {}
    for fact in processes[0].facts.get("session", []):
        facts.update(fact)
    start, end = facts.get("start_ns"), facts.get("end_ns")
    last = max(process.last_time for process in processes)
    if not all(process.stopped for process in processes):
        last = max(last, seen_ns)  # it lived, and wrote nothing
    recorded = [process.recorded_until for process in processes if process.recorded_until is not None]
    child = header.get("child")
    if recorded and end is None and isinstance(child, Mapping):
        end = child.get("end_ns")  # who watched has seen it end
    # Of a process that was killed the end is the last that is known of it.
    bounds = (base if from_start or start is None else int(start), last if end is None else int(end))
    known = {"start_ns": bounds[0] - base, "end_ns": bounds[1] - base}
    places = {name: facts.get(name) for name in ("entered_at", "left_at")}
    # Without a beginning, as in journals of before, all that the recorder itself took is in it.
    session = {"session": {**known, **places}} if from_start or start is not None else {}
    if session and recorded:
        session["session"]["recorded_until_ns"] = max(min(recorded), bounds[0]) - base
    return {**session, "wall_ns": bounds[1] - bounds[0]}


def attached_facts(process: Process, base: int) -> dict[str, Any]:
    """Returns when somebody attached to a process that ran, and the loads that had begun by then.

    Args:
        process: The first of the trace.
        base: The trace's clock base.
    """
    facts: dict[str, Any] = {}
    for fact in process.facts.get("attached", []):
        facts.update(fact)
    time = facts.get("time_ns")
    return {"attached": {**facts, "time_ns": None if time is None else time - base}} if facts else {}


def calls_facts(processes: list[Process]) -> dict[str, Any]:
    """Returns the calls that are no loads and were only counted, by phase; nothing where all were written.

    Args:
        processes: Those of the trace.
    """
    counted: dict[str, dict[str, int]] = {}
    for process in processes:
        for fact in process.facts.get("calls", []):
            for phase, sums in (fact.get("left_out") or {}).items():
                known = counted.setdefault(phase, {"calls": 0, "duration_ns": 0})
                for name in known:
                    known[name] += sums.get(name) or 0
    return {"calls": {"left_out": counted}} if counted else {}


def moves_facts(process: Process, offset: int) -> list[dict[str, Any]]:
    """Returns what each offloaded model of a process has moved in its forward passes.

    Args:
        process: What the process wrote.
        offset: What is added to its own numbers of spans.
    """
    # Written now and then: the last time counts.
    last = {fact.get("number"): fact for fact in process.facts.get("moves", [])}
    found = []
    for fact in last.values():
        load = fact.get("load")
        known = {"load": None if load is None else load + offset}
        found.append({"pid": process.pid, "rank": process.rank, **fact, **known})
    return found


def problems(processes: list[Process], damage: journal.Damage) -> dict[str, Any]:
    """Returns what the recorders had to say of themselves, and how many lines are damaged.

    Args:
        processes: Those of the trace.
        damage: That of the samples.
    """
    damaged = damage.lines + sum(process.damage.lines for process in processes)
    loads: Counter[str] = Counter()
    for process in processes:
        loads.update(process.unrecorded_loads)
    reasons = [process.journal_stopped for process in processes if process.journal_stopped]
    return {
        "lost": {
            "events": sum(process.lost for process in processes),
            **({"damaged_lines": damaged} if damaged else {}),
            **({"reason": reasons[0]} if reasons else {}),
            **({"loads": dict(loads)} if loads else {}),
        },
        "errors": [
            {"hook": error.hook, "message": error.message}
            for process in processes
            for error in process.errors
        ],
    }


def process_facts(processes: list[Process]) -> list[dict[str, Any]]:
    """Returns what the header says of each process.

    Args:
        processes: Those of the trace.
    """
    return [
        {
            "pid": process.pid,
            "rank": process.rank,
            "at_start": _at_start(process),
            **_job_of(process),
        }
        for process in processes
    ]


def _at_start(process: Process) -> dict[str, Any] | None:
    """Returns what the process held when its recording began, in bytes; None where it was not read."""
    return next(iter(process.facts.get("at_start", [])), None)


def _job_of(process: Process) -> dict[str, Any]:
    """Returns the job that a process is a rank of, and its machine; nothing for one alone."""
    known = process.facts.get("process", [])
    return {name: known[-1][name] for name in ("job", "machine") if known and known[-1].get(name)}


def surroundings(processes: list[Process], base: int) -> dict[str, Any]:
    """Returns what else went on: processes that were started and have no journal here, libraries, files.

    Args:
        processes: Those of the trace.
        base: The trace's clock base.
    """
    recorded = {process.pid for process in processes}
    started: list[dict[str, Any]] = []
    sums: dict[str, Any] = {"count": 0, "alive": None, "cpu_ns": None}
    around: dict[str, Any] = {}
    for process in processes:
        own = process.facts.get("child", [])
        started += [{**child, "time_ns": child["time_ns"] - base, "parent": process.pid} for child in own]
        said = process.facts.get("children", [{"count": len(own)}])[-1]
        for name in sums:
            if said.get(name) is not None:
                sums[name] = (sums[name] or 0) + said[name]
        for fact in process.facts.get("surroundings", []):
            around.update(fact)
    unrecorded = [child for child in started if child.get("pid") not in recorded]
    if len(unrecorded) < len(started):
        sums["count"] -= len(started) - len(unrecorded)
        # The kernel counts all children of a process together, those that have a journal here among them.
        sums["cpu_ns"] = None
        sums["alive"] = None if sums["alive"] else sums["alive"]
    # Journals of before say nothing of either.
    known = {"children": {**sums, "unrecorded": unrecorded}} if _counts_children(processes) else {}
    return {**known, **({"surroundings": around} if around else {})}


def _counts_children(processes: list[Process]) -> bool:
    return any(process.facts.get(block) for process in processes for block in ("child", "children"))
