"""What a peak of memory was made of, as a table: of the host, and of each device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hftrace import units
from hftrace.analysis.time.process_names import name_of_process
from hftrace.analysis.time.spans import span_index
from hftrace.render.peak import composition_time, describe_time
from hftrace.render.text import DIM, PLAIN, Line, fit, heading, notes, width_of
from hftrace.schema.trace import Trace

if TYPE_CHECKING:
    from hftrace.analysis.memory.composition import Composition, Part
    from hftrace.analysis.memory.device_peak import DevicePeak

FULL = "█"


def host_composition(trace: Trace, made: Composition, several: bool, width: int) -> Iterable[Line]:
    """Draws what the memory of a process was made of at its peak.

    Args:
        trace: The trace.
        made: What to draw.
        several: Whether there are several processes, so that each is named.
        width: Of the screen, in cells.
    """
    time_ns = composition_time(trace, made)
    where = describe_time(trace, time_ns, None)
    title = "What the peak is made of"
    if several:
        title += f", {_process(trace, made.load)}"
    yield heading(title, width, f"{units.byte_count(made.peak_bytes)}{', ' + where if where else ''}")
    yield from _table(made.parts, made.peak_bytes, width)
    if function := describe_time(trace, time_ns, made.span).removeprefix(where).removeprefix(", "):
        yield from notes([f"the peak was {function}"], width)
    for remark in host_remarks(made):
        yield from notes([remark], width)


def host_remarks(made: Composition) -> list[str]:
    """Returns what to say of the parts of a host's peak: what had to be cut, how much is explained."""
    said = []
    if made.overstated_bytes:
        said.append(_overstated(made.overstated_bytes, "was ever resident"))
    if made.explained is not None:
        rise = units.byte_count(made.peak_bytes - made.start_bytes)
        said.append(f"of the {rise} since the load's start, {units.share(made.explained)} are explained")
    return said


def _process(trace: Trace, row: int) -> str | None:
    lane = span_index(trace).lanes[row]
    return name_of_process(trace, lane.rank, lane.pid)


def device_composition(trace: Trace, peak: DevicePeak, several: bool, width: int) -> Iterable[Line]:
    """Draws what the memory of a device was made of at its peak, and what was taken of it besides.

    Args:
        trace: The trace.
        peak: What to draw.
        several: Whether there are several processes, so that each is named.
        width: Of the screen, in cells.
    """
    title = f"What the peak on {peak.device} is made of"
    if several:
        title += f", {_process(trace, peak.load)}"
    of = f" of {units.byte_count(peak.memory_bytes)}" if peak.memory_bytes is not None else ""
    yield heading(title, width, units.byte_count(peak.peak_bytes) + of)
    yield from _table(peak.parts, peak.peak_bytes, width)
    yield from notes(device_remarks(trace, peak), width)


def device_remarks(trace: Trace, peak: DevicePeak) -> list[str]:
    """Returns what to say of the parts of a device's peak, and of what was taken of it besides."""
    span = trace.spans[peak.span]
    said = []
    if span.phase != "load":
        said.append(f"the peak was in {(span.function or span.name).rpartition('.')[2]}")
    if peak.overstated_bytes:
        said.append(_overstated(peak.overstated_bytes, "torch's allocator gave out"))
    if peak.unused_bytes:
        said.append(
            f"{units.byte_count(peak.unused_bytes)} more were reserved when the load ended, and not in use"
        )
    if peak.outside_allocator_bytes:
        said.append(
            f"{units.byte_count(peak.outside_allocator_bytes)} were taken outside of torch's allocator: "
            "the context, other libraries and processes"
        )
    return said


def _overstated(size: int, than: str) -> str:
    return f"the ledger has {units.byte_count(size)} more there than {than}: parts are cut to what fits"


def _table(parts: Sequence[Part], peak_bytes: int, width: int) -> Iterable[Line]:
    kinds = width >= 66
    tail = 9 + 6 + (11 if kinds else 0)
    labels = min(44 if width < 110 else 60, width - tail)
    bars = min(40, width - tail - labels - 2) if kinds else 0
    for part in parts:
        share = part.bytes / peak_bytes if peak_bytes > 0 else 0.0
        label = part.label
        if part.tensors:
            counted = f"{label}, {units.count(part.tensors, 'tensor')}"
            label = counted if width_of(counted) <= labels else label
        yield [
            (fit(label, labels), PLAIN if part.kind != "rest" else DIM),
            (fit(units.byte_count(part.bytes), 9, "right"), PLAIN),
            (fit(units.share(share), 6, "right"), DIM),
            (fit(part.memory, 11, "right") if kinds else "", DIM),
            ("  " + FULL * round(max(0.0, min(1.0, share)) * bars), _style(part)),
        ]


def _style(part: Part) -> str:
    return {"anonymous": "cyan", "file": "blue", "both": DIM}.get(part.memory, "magenta")
