"""What the peaks of memory are made of, and memory at the moments that a person asks about: tables."""

from __future__ import annotations

from collections.abc import Sequence

from hftrace import units
from hftrace.analysis.memory.composition import Part, peak_composition
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.usage import ProcessMemory, process_memory
from hftrace.analysis.time.process_names import name_of_process
from hftrace.analysis.time.spans import span_index
from hftrace.export.page.markup import Content, Markup, remarks, section, table, tag
from hftrace.render.composition import device_remarks, host_remarks
from hftrace.render.peak import composition_time, describe_time
from hftrace.render.text import clean
from hftrace.schema.trace import Trace

KINDS = {"anonymous": "anonymous", "file": "file", "shared": "shared", "both": "other"}
"""The colour of a part, by the kind of its memory; that of devices for all others."""


def peaks_section(trace: Trace) -> Markup | None:
    """Returns what the peaks of the host and of each device were made of, and memory by moments."""
    content: list[Content] = []
    made = peak_composition(trace)
    several = len(process_memory(trace)) > 1
    if made is not None and made.parts:
        where = describe_time(trace, composition_time(trace, made), made.span)
        of = f", {_process(trace, made.load)}" if several else ""
        content.append(_made_of(f"CPU memory{of}", made.parts, made.peak_bytes, where, host_remarks(made)))
    for peak in highest_device_peaks(trace):
        memory = f"of {units.byte_count(peak.memory_bytes)}" if peak.memory_bytes is not None else ""
        of = f", {_process(trace, peak.load)}" if several else ""
        content.append(
            _made_of(f"{peak.device}{of}", peak.parts, peak.peak_bytes, memory, device_remarks(trace, peak))
        )
    content += [_states(trace, process) for process in process_memory(trace) if process.states]
    content = [each for each in content if each is not None]
    if not content:
        return None
    return section("peaks", "What the peaks are made of", tag("div", content, class_="columns"))


def _process(trace: Trace, row: int) -> str:
    lane = span_index(trace).lanes[row]
    return name_of_process(trace, lane.rank, lane.pid) or f"process {lane.pid}"


def _made_of(title: str, parts: Sequence[Part], peak: int, where: str, said: list[str]) -> Markup:
    rows = []
    for part in parts:
        label = part.label + (f", {units.count(part.tensors, 'tensor')}" if part.tensors else "")
        share = part.bytes / peak if peak > 0 else 0.0
        rows.append(
            (
                label,
                units.byte_count(part.bytes),
                units.share(share),
                clean(part.memory),
                _bar(share, part.memory),
            )
        )
    return tag(
        "div",
        tag("h3", f"{title} ", tag("b", units.byte_count(peak)), tag("small", where) if where else None),
        table(
            ("part", "bytes", "share", "memory", ""),
            rows,
            (False, True, True, False, False),
            caption=f"What the peak of {title} is made of",
            class_="figures",
        ),
        remarks(said),
    )


def _bar(share: float, memory: str) -> Markup:
    width = round(100 * max(0.0, min(1.0, share)), 2)
    return tag(
        "svg",
        tag("rect", width=width, height="10", class_=f"m-{KINDS.get(memory, 'device')}"),
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        class_="bar",
        aria_hidden="true",
    )


def _states(trace: Trace, process: ProcessMemory) -> Markup | None:
    name = name_of_process(trace, process.rank, process.pid)
    rows = []
    for number, state in enumerate(process.states):
        shown = state if not number else process.above_start(state)
        write = units.byte_count if not number else units.signed_bytes
        values = (shown.total_bytes, shown.anonymous_bytes, shown.file_bytes)
        if any(value is not None for value in values):
            rows.append(("at the start, absolute" if not number else state.name, *map(write, values)))
    if not rows:
        return None
    title = "Above the start of the load" + (f", {name}" if name else "")
    return tag(
        "div",
        tag("h3", title),
        table(("", "total", "anonymous", "file-backed"), rows, (False, True, True, True), caption=title),
    )
