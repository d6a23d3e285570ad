"""The most expensive phases of a trace as bars."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.time.imports import told_rank
from hftrace.analysis.time.phases import phase_times
from hftrace.analysis.time.session import (
    OUTSIDE,
    OWN,
    UNRECORDED,
    missed_ns,
    own_ns,
    session_wall_ns,
    unrecorded_ns,
)
from hftrace.analysis.time.spans import span_index
from hftrace.render.text import DIM, PLAIN, Line, fit, phase_letter, phase_style, width_of
from hftrace.schema.trace import Trace

BARS = 3
LEAST_LABEL = 9


def phase_amounts(trace: Trace) -> list[tuple[str, int]]:
    """Returns all phases with their own time in ns, what lies outside of spans among them, longest first."""
    own, missed = own_ns(trace), missed_ns(trace)
    outside = unrecorded_ns(trace) - own - missed
    times = {**phase_times(trace), OUTSIDE: outside, OWN: own, UNRECORDED: missed}
    return sorted(((name, spent) for name, spent in times.items() if spent > 0), key=lambda item: -item[1])


def bars(trace: Trace, width: int) -> Iterable[Line]:
    """Yields the most expensive phases as bars, and the rest as one."""
    phases = phase_amounts(trace)
    shown = phases[:BARS]
    rest = phases[BARS:]
    names = [phase for phase, _ in shown]
    label_width = min(17, max(LEAST_LABEL, *(width_of(name) for name in names)))
    room = max(4, width - label_width - 20)
    whose = _whose(trace)
    if whose:
        yield [(f"phases of {whose}", DIM)]
    for name, (phase, spent) in zip(names, shown, strict=True):
        share = spent / session_wall_ns(trace)
        yield [
            (phase_letter(phase) + " ", phase_style(phase)),
            (fit(name, label_width + 1), PLAIN),
            (_bar(share, room), phase_style(phase)),
            (fit(units.duration(spent), 11, "right"), PLAIN),
            (fit(units.share(share), 6, "right"), DIM),
        ]
    if rest:
        spent = sum(time for _, time in rest)
        named = _fitting_names(
            f"{units.count(len(rest), 'more phase')}: ",
            [phase for phase, _ in rest],
            label_width + room,
        )
        yield [
            ("  " + fit(named, label_width + 1 + room), DIM),
            (fit(units.duration(spent), 11, "right"), DIM),
            (fit(units.share(spent / session_wall_ns(trace)), 6, "right"), DIM),
        ]


def _whose(trace: Trace) -> str:
    """Returns the rank or the process that the phases are of, where there are several."""
    rank, index = told_rank(trace), span_index(trace)
    if rank is not None:
        return f"rank {rank}"
    several = len({lane.pid for lane in index.lanes}) > 1
    return f"process {index.main_lane.pid}" if several and index.main_lane is not None else ""


def _fitting_names(head: str, names: list[str], width: int) -> str:
    """Returns as many names as fit, and a mark where some do not."""
    text = head + ", ".join(names)
    while width_of(text) > width and len(names) > 1:
        names = names[:-1]
        text = head + ", ".join(names) + ", …"
    return text


def _bar(share: float, room: int) -> str:
    # A damaged trace may hold phases of centuries in a session of seconds.
    halves = round(min(1.0, share) * room * 2)
    return fit("█" * (halves // 2) + ("▌" if halves % 2 else ""), room)
