"""The header and the environment of a trace of several ranks: what each said is there, nothing averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hftrace.replay.merging.clocks import machine_count
from hftrace.replay.merging.parts import Part, rows
from hftrace.schema.facts import note_lost

BY_NAME = ("variables", "resource_limits")
"""Blocks of the environment whose values are compared one by one."""
DIFFERENT_BY_NATURE = ("LOCAL_RANK", "RANK", "GROUP_RANK", "ROLE_RANK", "CUDA_VISIBLE_DEVICES")
_SUMS = ("count", "alive", "cpu_ns")


def header(parts: list[Part], clocks: str) -> dict[str, Any]:
    """Returns the header of all parts.

    Args:
        parts: The traces in order of their ranks, whose shifts and numbers are known.
        clocks: By what their clocks were brought together.
    """
    first = parts[0]
    headers = [part.trace.header for part in parts]
    earliest = min(parts, key=lambda part: part.shift_ns)
    ranks = sorted({rank for part in parts for rank in part.ranks})
    result: dict[str, Any] = {
        **first.trace.header,
        **{name: earliest.trace.header.get(name) for name in ("start_time", "clock_base_ns")},
        "processes": _processes(parts),
        "ranks": ranks,
        "world_size": first.world_size,
        "threads": [
            {**thread, "pid": part.pids.get(thread.get("pid", 0), thread.get("pid"))}
            for part in parts
            for thread in rows(part.trace.header, "threads")
        ],
        **_session(parts),
        "errors": [error for each in headers for error in rows(each, "errors")],
        "merged": {
            "files": len(parts),
            "clocks": clocks,
            "machines": machine_count(parts),
            "missing": [rank for rank in range(min(first.world_size, 1 << 16)) if rank not in ranks],
            "differences": differences(parts),
        },
    }
    peaks = {each.get("peaks") for each in headers}
    if len(peaks) > 1:
        result["peaks"] = "sampled"
    for name, value in (
        ("sampling", _sampling(parts)),
        ("calls", _calls(headers)),
        ("moves", _moves(parts)),
        ("watched", _watched(parts)),
        ("children", _children(parts)),
        ("surroundings", _surroundings(headers)),
    ):
        result.pop(name, None)
        if value:
            result[name] = value
    if any(each.get("recovered") is True for each in headers):
        result["recovered"] = True
    result.pop("child", None)  # of one process, in its own clock
    for each in headers[1:]:
        result = _with_lost(result, each.get("lost"))
    return result


def environment(parts: list[Part]) -> dict[str, Any]:
    """Returns the environment of the first rank that has one, with the packages of all of them."""
    known = [part.trace.environment for part in parts]
    chosen = next((each for each in known if each.get("transformers")), known[0])
    packages: dict[str, Any] = {}
    for each in known:
        own = each.get("packages")
        for name, facts in own.items() if isinstance(own, dict) else ():
            packages.setdefault(name, facts)
    return {**chosen, **({"packages": packages} if packages else {})}


def differences(parts: list[Part]) -> list[dict[str, Any]]:
    """Returns in what the environments of the ranks differ: versions, limits, variables."""
    around = {",".join(map(str, part.ranks)): part.trace.environment for part in parts}
    found = []
    for name in sorted({name for each in around.values() for name, _ in _plain(each)}):
        # What a rank has not said, because it was killed before, is no difference.
        said = {ranks: value for ranks, each in around.items() if (value := _said(each, name)) is not None}
        if len({repr(value) for value in said.values()}) > 1:
            found.append({"of": name, "by_rank": said})
    return found


def _said(facts: Mapping[str, Any], name: str) -> Any:
    """Returns a value of an environment; ``not set`` for a variable that it has not, None where unknown."""
    block, dot, key = name.partition(".")
    own = facts.get(block)
    if not dot:
        return own
    return own.get(key, "not set") if isinstance(own, dict) else None


def _plain(facts: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in facts.items():
        if type(value) in (str, int, float, bool):
            yield name, value
    for block in BY_NAME:
        own = facts.get(block)
        for name, value in own.items() if isinstance(own, dict) else ():
            if name not in DIFFERENT_BY_NATURE and type(value) in (str, int, float, bool):
                yield f"{block}.{name}", value


def _processes(parts: list[Part]) -> list[dict[str, Any]]:
    argv = parts[0].trace.header.get("argv")
    found = []
    for part in parts:
        own = part.trace.header.get("argv")
        for process in part.processes():
            facts = dict(process)
            pid = facts.get("pid")
            if pid in part.pids:
                facts.update(pid=part.pids[pid], pid_there=pid)
            if own != argv and isinstance(own, list) and "argv" not in facts:
                facts["argv"] = own
            found.append(facts)
    return found


def _session(parts: list[Part]) -> dict[str, Any]:
    starts, ends, until = [], [], []
    places: dict[str, Any] = {}
    for part in parts:
        known = part.trace.header.get("session")
        known = known if isinstance(known, dict) else {}
        wall = part.trace.header.get("wall_ns")
        start = known.get("start_ns")
        start = start if type(start) is int else 0
        end = known.get("end_ns")
        if type(end) is not int:
            end = start + wall if type(wall) is int else None
        starts.append(start + part.shift_ns)
        if end is not None:
            ends.append(end + part.shift_ns)
        if type(known.get("recorded_until_ns")) is int:
            until.append(known["recorded_until_ns"] + part.shift_ns)
        for name in ("entered_at", "left_at"):
            places.setdefault(name, known.get(name))
    bounds = (min(starts), max(ends, default=max(starts)))
    session = {"start_ns": bounds[0], "end_ns": bounds[1], **places}
    if until:
        session["recorded_until_ns"] = min(until)
    return {"session": session, "wall_ns": max(0, bounds[1] - bounds[0])}


def _sampling(parts: list[Part]) -> dict[str, Any]:
    """Returns how memory was sampled: of rates the lowest, of what is missing all, of limits the first."""
    sampled = [(part, part.trace.header.get("sampling")) for part in parts]
    found = [(part, facts) for part, facts in sampled if isinstance(facts, dict)]
    if not found:
        return {}
    result = dict(found[0][1])
    for name in ("rate_asked_hz", "rate_reached_hz"):
        rates = [facts[name] for _, facts in found if type(facts.get(name)) in (int, float)]
        if rates:
            result[name] = min(rates)
    missing: dict[str, Any] = {}
    ended: list[dict[str, Any]] = []
    limits = []
    for part, facts in found:
        own = facts.get("missing")
        missing.update(own if isinstance(own, dict) else {})
        ended += [_moved(each, "time_ns", part.shift_ns) for each in rows(facts, "ended")]
        if isinstance(facts.get("limit"), dict):
            limits.append(_moved(facts["limit"], "time_ns", part.shift_ns))
    known_of_all = {"missing": missing, "ended": ended, "limit": limits[0] if limits else None}
    return {**result, **{name: value for name, value in known_of_all.items() if value}}


def _moved(facts: Mapping[str, Any], name: str, shift: int) -> dict[str, Any]:
    time = facts.get(name)
    return {**facts, name: time + shift} if type(time) is int else dict(facts)


def _calls(headers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    counted: dict[str, dict[str, int]] = {}
    for each in headers:
        known = each.get("calls")
        left_out = known.get("left_out") if isinstance(known, dict) else None
        for phase, sums in left_out.items() if isinstance(left_out, dict) else ():
            own = counted.setdefault(phase, {"calls": 0, "duration_ns": 0})
            for name in own:
                own[name] += sums.get(name) or 0
    return {"left_out": counted} if counted else {}


def _moves(parts: list[Part]) -> list[dict[str, Any]]:
    return [
        {**_moved(each, "load", part.offset), "pid": part.pids.get(each.get("pid", 0), each.get("pid"))}
        for part in parts
        for each in rows(part.trace.header, "moves")
    ]


def _watched(parts: list[Part]) -> list[dict[str, Any]]:
    found = []
    for part in parts:
        for each in rows(part.trace.header, "watched"):
            moved = _moved(_moved(each, "time_ns", part.shift_ns), "number", part.watched_offset)
            pid = moved.get("pid")
            found.append({**moved, "pid": part.pids.get(pid, pid) if type(pid) is int else pid})
    return found


def _children(parts: list[Part]) -> dict[str, Any]:
    known = [(part, part.trace.header.get("children")) for part in parts]
    found = [(part, facts) for part, facts in known if isinstance(facts, dict)]
    if not found:
        return {}
    result: dict[str, Any] = dict.fromkeys(_SUMS)
    unrecorded: list[dict[str, Any]] = []
    for part, facts in found:
        for name in _SUMS:
            if type(facts.get(name)) is int:
                result[name] = (result[name] or 0) + facts[name]
        unrecorded += [_moved(each, "time_ns", part.shift_ns) for each in rows(facts, "unrecorded")]
    return {**result, "unrecorded": unrecorded}


def _surroundings(headers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for each in headers:
        known = each.get("surroundings")
        for name, value in known.items() if isinstance(known, dict) else ():
            before = result.get(name)
            if isinstance(value, list) and isinstance(before, list):
                result[name] = before + [one for one in value if one not in before]
            elif name == "storage_read_bytes" and type(value) is int and type(before) is int:
                result[name] = before + value
            elif before is None:
                result[name] = value
    return result


def _with_lost(header: dict[str, Any], lost: Any) -> dict[str, Any]:
    """Returns a header that has lost what another one has lost, too."""
    if not isinstance(lost, dict):
        return header
    known = dict(header["lost"]) if isinstance(header.get("lost"), dict) else {}
    if isinstance(lost.get("reason"), str):
        known.setdefault("reason", lost["reason"])
    loads = lost.get("loads")
    if isinstance(loads, dict):
        own = known.get("loads")
        sums = dict(own) if isinstance(own, dict) else {}
        for name, count in loads.items():
            sums[name] = (sums.get(name) or 0) + (count or 0)
        known["loads"] = sums
    counts = {name: value for name, value in lost.items() if type(value) in (int, list)}
    return note_lost({**header, "lost": known}, counts)
