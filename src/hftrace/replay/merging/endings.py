"""How the ranks of a job ended: the one that failed first before the others, and what these were in then."""

from __future__ import annotations

from typing import Any

from hftrace.replay.merging.parts import Part, rows
from hftrace.schema.trace import Trace

WORST = ("killed", "error", "interrupted")
"""Of two that failed at the same moment, the one to be named first."""


def outcome(parts: list[Part]) -> dict[str, Any]:
    """Returns the outcome of the job: that of the rank that failed first, and how each of them ended.

    Args:
        parts: The traces, whose shifts are known.
    """
    endings = sorted((ending for part in parts for ending in _endings(part)), key=_place)
    worst = next(part for part in parts if endings[0]["rank"] in part.ranks)
    result = dict(worst.trace.outcome)
    for name in ("load", "span"):
        if type(result.get(name)) is int:
            result[name] += worst.offset
    for name in [name for name in result if name in ("last_tensor_ns",) and type(result[name]) is int]:
        result[name] += worst.shift_ns
    for name, time in (("reading", "since_ns"), ("stalls", "time_ns")):
        if name in result:
            result[name] = [
                {**each, time: each[time] + worst.shift_ns} if type(each.get(time)) is int else each
                for each in rows(result, name)
            ]
    first = endings[0]
    if first["status"] != "ok":
        for part in parts:
            for ending in endings[1:]:
                if ending["rank"] in part.ranks:
                    ending.update(_open_then(part, ending["rank"], first["ended_ns"]))
    result["by_rank"] = endings
    return result


def _place(ending: dict[str, Any]) -> tuple[bool, int, int, int]:
    status = ending["status"]
    return (
        status == "ok",
        ending["ended_ns"] if status != "ok" else 0,
        WORST.index(status) if status in WORST else len(WORST),
        ending["rank"],
    )


def _endings(part: Part) -> list[dict[str, Any]]:
    known = part.trace.outcome
    if len(part.ranks) > 1:
        said = rows(known, "by_rank")
        if said:
            return [
                {
                    **each,
                    "status": str(each.get("status")),
                    "rank": each.get("rank") or 0,
                    "ended_ns": (each.get("ended_ns") or 0) + part.shift_ns,
                }
                for each in said
            ]
    error = known.get("error")
    error = error if isinstance(error, dict) else {}
    facts = {
        **{name: known.get(name) for name in ("signal", "exit_code", "killer", "died_in", "last_phase")},
        "error": error.get("type"),
        "message": error.get("message"),
        "recovered": part.trace.header.get("recovered") is True or None,
    }
    return [
        {
            "rank": rank,
            "status": str(known.get("status")),
            "ended_ns": _end_of(part.trace, rank) + part.shift_ns,
            **{name: value for name, value in facts.items() if value is not None},
        }
        for rank in part.ranks
    ]


def _end_of(trace: Trace, rank: int) -> int:
    """Returns the last that is known of a rank."""
    session = trace.header.get("session")
    end = session.get("end_ns") if isinstance(session, dict) else None
    if type(end) is int and trace.outcome.get("status") != "killed":
        return end
    spans = zip(trace.spans.column("rank"), trace.spans.column("end_ns"), strict=True)
    last = max((end for of, end in spans if of == rank), default=0)
    return max(last, max(trace.samples.column("time_ns"), default=0))


def _open_then(part: Part, rank: int, time_ns: int) -> dict[str, Any]:
    """Returns the innermost span that a rank was in at a moment; nothing where it was in none.

    Args:
        part: Its trace.
        rank: The rank.
        time_ns: The moment, by the clock of all.
    """
    spans, moment = part.trace.spans, time_ns - part.shift_ns
    columns = [spans.column(name) for name in ("rank", "start_ns", "end_ns", "name", "phase")]
    inside = [
        (start, -end, name, phase)
        for of, start, end, name, phase in zip(*columns, strict=True)
        if of == rank and start <= moment <= end
    ]
    if not inside:
        return {}
    *_, name, phase = max(inside, key=lambda span: span[:2])
    return {"open_name": name, "open_phase": phase}
