"""Brings the clocks of several traces together.

On one machine all processes have the same monotonic clock, and nothing has to be guessed. Of several
machines the first barrier of the process group is the moment that all of them have in common: nobody leaves
it before the last one has come. Without one there is the wall clock, which NTP keeps to milliseconds.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Hashable

from hftrace.replay.merging.parts import Part

MONOTONIC, BARRIER, WALL = "monotonic", "barrier", "wall"
SET_UP, FIRST_BARRIER = "init_process_group", "barrier"


def align(parts: list[Part]) -> str:
    """Says by how much the times of each part have to be moved, from the earliest beginning of all.

    Args:
        parts: The traces; ``shift_ns`` of each is set.

    Returns:
        By what: ``monotonic``, ``barrier`` or ``wall``.
    """
    machines: dict[Hashable, list[Part]] = defaultdict(list)
    for number, part in enumerate(parts):
        machine = part.machine()
        machines[machine.get("clock") or machine.get("host") or number].append(part)
    groups = list(machines.values())
    starts = {id(part): _base(part) for part in parts}
    how = MONOTONIC
    if len(groups) > 1:
        barriers = [_first_barrier(group) for group in groups]
        walls = [_wall_offset(group) for group in groups]
        if all(barrier is not None for barrier in barriers):
            how, moved = BARRIER, [-(barrier or 0) for barrier in barriers]
        else:
            how, moved = WALL, walls
        for group, offset in zip(groups, moved, strict=True):
            for part in group:
                starts[id(part)] += offset
    earliest = min(starts.values())
    for part in parts:
        part.shift_ns = starts[id(part)] - earliest
    return how


def machine_count(parts: list[Part]) -> int:
    """Returns on how many machines the parts were recorded, as far as they say it."""
    machines = [part.machine() for part in parts]
    return len({machine.get("clock") or machine.get("host") for machine in machines if machine}) or 1


def _base(part: Part) -> int:
    known = part.trace.header.get("clock_base_ns")
    return known if type(known) is int else 0


def _first_barrier(group: list[Part]) -> int | None:
    """Returns when a machine's ranks left the first barrier of the process group, by their clock."""
    found: list[int] = []
    for part in group:
        spans = part.trace.spans
        columns = (spans.column(name) for name in ("name", "status", "end_ns"))
        ended = [(end, name) for name, status, end in zip(*columns, strict=True) if status == "ok"]
        set_up = min((end for end, name in ended if name == SET_UP), default=None)
        if set_up is None:
            continue  # the group was there before the recording: which barrier its first one is, nobody knows
        after = [end for end, name in ended if name == FIRST_BARRIER and end >= set_up]
        if after:
            found.append(min(after) + _base(part))
    return min(found, default=None)


def _wall_offset(group: list[Part]) -> int:
    """Returns how far the wall clock of a machine is before its monotonic one."""
    for part in group:
        known = part.machine().get("wall_offset_ns")
        if type(known) is int:
            return known
    for part in group:
        start = part.trace.header.get("start_time")
        try:
            wall = datetime.datetime.fromisoformat(str(start)).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
        return round(wall * 1e9) - _base(part)
    return 0
