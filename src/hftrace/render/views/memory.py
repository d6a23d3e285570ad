"""Memory over time: what was resident, what the load added to it, and what the peak was made of.

Anonymous, file-backed and shared memory are stacked in one chart, because the
limit is one for all of them, and told apart by glyph as well as by colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hftrace import units
from hftrace.analysis.ledger.merges import merges
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.facts import composition_facts, device_peak_facts, peak_span, peak_time_ns
from hftrace.analysis.memory.peaks import Peak
from hftrace.analysis.memory.pinned import Pinned, pinned_host_memory
from hftrace.analysis.memory.usage import ProcessMemory, process_memory
from hftrace.analysis.time.process_names import name_of_process
from hftrace.analysis.time.spans import span_index, thread_names
from hftrace.analysis.time.timeline import dominant, resample, stretches_by_lane
from hftrace.analysis.values import integer
from hftrace.render.charts import DEVICE_LAYERS, HOST_LAYERS, axis_text, chart, lane_line, spark
from hftrace.render.composition import device_composition, host_composition
from hftrace.render.merges import merges_table
from hftrace.render.panels import Panel, chart_panels
from hftrace.render.peak import describe_time
from hftrace.render.text import (
    DIM,
    PLAIN,
    STRONG,
    WARN,
    Block,
    Line,
    fit,
    heading,
    legend,
    notes,
    shorten,
    width_of,
)
from hftrace.render.views.options import ViewOptions
from hftrace.schema.trace import Trace

DEVICE_CHARTS = 2
"""With more devices than this, each has a row instead of a chart."""
LIMIT_IN_SIGHT = 1.6
"""A limit that is further above the peak than this would flatten the chart: it is said, not drawn."""


def draw(trace: Trace, options: ViewOptions) -> list[Block]:
    """Returns charts of memory over time, figures above the start, and the parts of the peak."""

    def lines(width: int) -> Iterable[Line]:
        several = len(process_memory(trace)) > 1
        for number, process in enumerate(process_memory(trace)):
            if number:
                yield []
            yield from _process(trace, process, several, width)
        if not process_memory(trace):
            yield heading("Memory", width)
            yield [("nothing to draw: this trace has no spans", DIM)]
        made = peak_composition(trace)
        if made is not None and made.parts:
            yield []
            yield from host_composition(trace, made, several, width)
        for peak in highest_device_peaks(trace):
            yield []
            yield from device_composition(trace, peak, several, width)
        if not several and (pinned := pinned_host_memory(trace)) is not None:
            yield from notes([_pinned_remark(pinned)], width)

    merged = merges_table(trace, peak_composition(trace))
    return [Block(lines), merged] if merged is not None else [Block(lines)]


# -- charts ---------------------------------------------------------------------------------------


def _process(trace: Trace, process: ProcessMemory, several: bool, width: int) -> Iterable[Line]:
    title = f"Memory of {name_of_process(trace, process.rank, process.pid)}" if several else "Memory"
    labels = max(13, min(20, width // 5))
    panels = chart_panels(process, max(10, width - labels - 1))
    if not panels or not (process.readings or process.devices):
        yield heading(title, width)
        missing = "time in it" if not panels else "reading of memory"
        yield [(f"nothing to draw: this trace has no {missing}", DIM)]
    else:
        yield heading(title, width, _scale(panels))
        used: set[str] = set()
        yield _phases(trace, process, panels, labels, used)
        if process.readings:
            yield from _host_chart(trace, process, panels, labels, width)
        yield from _devices(process, panels, labels, width)
        axes = [
            fit(
                axis_text(panel.end_ns - panel.start_ns, panel.columns, panel.zero_ns - panel.start_ns),
                panel.columns,
            )
            for panel in panels
        ]
        yield [(fit("time", labels) + " ", DIM), (" ".join(axes), DIM)]
        yield from _keys(process)
        yield from legend(used, width)
        yield from notes(remarks(trace, process), width)
    if process.states:
        yield []
        yield from _states(process, width)


def _scale(panels: list[Panel]) -> str:
    """Returns how much time a column stands for; the loads' panels first."""
    steps = {
        panel.name: units.duration((panel.end_ns - panel.start_ns) / panel.columns)
        for panel in sorted(panels, key=lambda panel: panel.end_ns - panel.start_ns)
        if panel.columns
    }
    text = f"1 column = {steps.get('load') or steps.get('all')}"
    return text + (f" (imports: {steps['imports']})" if "imports" in steps else "")


def _phases(trace: Trace, process: ProcessMemory, panels: list[Panel], labels: int, used: set[str]) -> Line:
    """Returns the lane of the process's loading thread, on the axis of the panels."""
    index = span_index(trace)
    rows = [
        row for row in (*index.load_rows, *index.roots) if index.lanes[row][:2] == (process.rank, process.pid)
    ]
    lane = index.lanes[rows[0]] if rows else None
    lanes = stretches_by_lane(trace)
    stretches = sorted(lanes.get(lane, [])) if lane is not None else []
    name = thread_names(trace).get(lane.thread, "main") if lane is not None else ""
    line: Line = [(fit(name, labels) + " ", DIM)]
    for number, panel in enumerate(panels):
        if number:
            line.append(("│", DIM))
        row = dominant(stretches, panel.start_ns, panel.end_ns, panel.columns)
        used.update(phase for phase in row if phase)
        line += lane_line(row)
    return line


def _columns(
    points: Sequence[tuple[int, tuple[int, ...]]], panels: list[Panel]
) -> list[tuple[int, ...] | None]:
    """Returns the largest stack of each column over all panels; a border between two panels has none."""
    columns: list[tuple[int, ...] | None] = []
    for number, panel in enumerate(panels):
        if number:
            columns.append(())
        columns += resample(points, panel.start_ns, panel.end_ns, panel.columns)
    return columns


def _host_chart(
    trace: Trace, process: ProcessMemory, panels: list[Panel], labels: int, width: int
) -> Iterable[Line]:
    # The total comes first: it is what the largest value of a column is chosen by.
    points = [
        (
            reading.time_ns,
            (reading.total_bytes, reading.anonymous_bytes, reading.file_bytes, reading.shared_bytes),
        )
        for reading in process.readings
    ]
    columns = _columns(points, panels)
    peak = process.peak
    highest = max([peak.bytes if peak else 0, *(column[0] for column in columns if column)], default=0)
    limit = _limit(trace)
    marked = limit if limit is not None and limit <= LIMIT_IN_SIGHT * highest else None
    column = None
    if peak is not None:
        column = _column_of(peak_time_ns(trace, process, peak), panels)
    if peak is not None and column is not None:
        yield _peak_line(trace, process, peak, column, labels, len(columns))
    height = 12 if width >= 110 else 9
    stacks = [None if not column else column[1:] for column in columns]
    borders = [number for number, stack in enumerate(columns) if stack == ()]
    between = (column, peak.bytes) if peak and column is not None and peak.between_readings else None
    yield from chart(
        stacks, HOST_LAYERS, max(highest, marked or 0), height, labels, borders, limit=marked, peak=between
    )


def _column_of(time_ns: int | None, panels: list[Panel]) -> int | None:
    """Returns the column of a time; None where no panel shows it."""
    offset = 0
    for panel in panels:
        if (
            time_ns is not None
            and panel.start_ns <= time_ns <= panel.end_ns
            and panel.end_ns > panel.start_ns
        ):
            share = (time_ns - panel.start_ns) / (panel.end_ns - panel.start_ns)
            return offset + min(panel.columns - 1, int(share * panel.columns))
        offset += panel.columns + 1
    # A process is sampled until it has ended, which is a little longer than its last span.
    return offset - 2 if time_ns is not None and panels and time_ns > panels[-1].end_ns else None


def _peak_line(
    trace: Trace, process: ProcessMemory, peak: Peak, column: int, labels: int, columns: int
) -> Line:
    text = f"peak {units.byte_count(peak.bytes)}"
    where = describe_time(trace, peak_time_ns(trace, process, peak), None)
    if where and width_of(text) + width_of(where) + 4 <= columns // 2:
        text += f", {where}"
    if column >= columns // 2:
        room = column
        return [(" " * (labels + 1), PLAIN), (fit(text + " ", room, "right") + "↓", WARN)]
    return [(" " * (labels + 1 + column), PLAIN), (f"↓ {shorten(text, columns - column - 2)}", WARN)]


def _devices(process: ProcessMemory, panels: list[Panel], labels: int, width: int) -> Iterable[Line]:
    for device, points in process.devices.items():
        peak = process.device_peaks.get(device)
        columns = _columns(
            [(reading.time_ns, (reading.reserved_bytes, reading.allocated_bytes)) for reading in points],
            panels,
        )
        highest = max([peak or 0, *(column[0] for column in columns if column)], default=0)
        name = f"{device} {units.byte_count(peak)}"
        if highest <= 0:
            continue
        if len(process.devices) > DEVICE_CHARTS:
            row = [column[1] if column else None for column in columns]
            yield [(fit(name, labels) + " ", DIM), (spark(row, highest), DEVICE_LAYERS[0][1])]
            continue
        title = f"{device}, torch's allocator, peak {units.byte_count(peak)}"
        yield [(fit("", labels) + " ", DIM), (shorten(title, len(columns)), STRONG)]
        stacks = [(column[1], column[0] - column[1]) if column else None for column in columns]
        borders = [number for number, stack in enumerate(columns) if stack == ()]
        yield from chart(stacks, DEVICE_LAYERS, highest, 5, labels, borders)


def _keys(process: ProcessMemory) -> Iterable[Line]:
    """Yields what the glyphs stand for; layers that are empty everywhere are left out."""
    shared = any(reading.shared_bytes for reading in process.readings)
    host = HOST_LAYERS[: 3 if shared else 2] if process.readings else ()
    for title, layers in (("", host), ("device: ", DEVICE_LAYERS if process.devices else ())):
        line: Line = [(title, DIM)]
        for number, (glyph, style, name) in enumerate(layers):
            line += [("  " if number else "", PLAIN), (glyph, style), (f" {name}", DIM)]
        if layers:
            yield line


def _limit(trace: Trace) -> int | None:
    limit = integer(trace.outcome.get("limit_bytes"))
    return limit if limit is not None and limit > 0 else None


def remarks(trace: Trace, process: ProcessMemory) -> list[str]:
    """Returns what to say of a process's peaks, its limit, and what was not measured."""
    said = []
    peak = process.peak
    if peak is not None:
        text = f"peak: {units.byte_count(peak.bytes)}"
        where = describe_time(trace, peak_time_ns(trace, process, peak), peak_span(trace, peak))
        text += f" {where}" if where else ""
        if not peak.exact:
            text += "; this is the largest sample, an exact figure is not known"
        elif peak.between_readings:
            seen = (
                f"the largest shows {units.byte_count(peak.read_bytes)}"
                if peak.read_bytes
                else "there are none"
            )
            text += f"; peak between samples ({seen}): its height is exact, its time is not"
        else:
            text += "; the kernel's own figure"
        said.append(text)
    limit, kind = _limit(trace), trace.outcome.get("limit_kind")
    if limit is not None and peak is not None and limit > LIMIT_IN_SIGHT * peak.bytes:
        named = f" ({kind})" if kind else ""
        share = units.share(peak.bytes / limit)
        said.append(f"limit: {units.byte_count(limit)}{named}, far above: the peak is {share} of it")
    said += _driver_remarks(process)
    if not len(trace.samples):
        said.append("no samples: the chart has the edges of spans alone")
    return said


def _driver_remarks(process: ProcessMemory) -> Iterable[str]:
    """Yields what the driver says of each device, which counts more than torch's allocator does."""
    found = sorted(process.driver.items())
    for device, taken in found[:DEVICE_CHARTS]:
        used = units.byte_count(max(reading.used_bytes for reading in taken))
        text = f"{device}: the driver says that at most {used} were in use, by all processes"
        if not process.device_peaks.get(device):
            asked = device in process.device_peaks
            text += "; torch's allocator had nothing there" if asked else "; torch's allocator was not in use"
        yield text
    if len(found) > DEVICE_CHARTS:
        yield f"{units.count(len(found) - DEVICE_CHARTS, 'more device')} with figures of the driver: --json"


def _pinned_remark(pinned: Pinned) -> str:
    """Returns what is said of pinned host memory."""
    if not pinned.peak_bytes:
        return "torch has pinned no memory of the host, which copies to a device are faster from"
    now = f", {units.byte_count(pinned.current_bytes)} of it when the recording ended"
    return f"torch has pinned at most {units.byte_count(pinned.peak_bytes)} of the host's memory{now}"


# -- figures above the start ----------------------------------------------------------------------


def _states(process: ProcessMemory, width: int) -> Iterable[Line]:
    yield heading("Memory, above the start of the load", width)
    room = 14 if width >= 64 else 9
    names = min(24, width - 3 * room)
    titles = ("total", "anonymous", "file-backed") if room > 12 else ("total", "anon", "file")
    yield [(" " * names + "".join(fit(title, room, "right") for title in titles), DIM)]
    for number, state in enumerate(process.states):
        shown = state if not number else process.above_start(state)
        write = units.byte_count if not number else units.signed_bytes
        values = (shown.total_bytes, shown.anonymous_bytes, shown.file_bytes)
        name = "at the start, absolute" if not number else state.name
        cells = "".join(fit(write(value), room, "right") for value in values)
        if any(value is not None for value in values):
            yield [(fit(name, names), PLAIN), (cells, STRONG if state.name == "peak" else PLAIN)]


# -- facts ----------------------------------------------------------------------------------------


def facts(trace: Trace, options: ViewOptions) -> dict[str, Any]:
    """Returns what the view draws as plain JSON values: bytes, and ns from the clock base."""
    return {
        "processes": [
            {
                "rank": process.rank,
                "pid": process.pid,
                "peak": _peak_facts(trace, process, process.peak),
                "load_peak": _peak_facts(trace, process, process.load_peak),
                "limit_bytes": _limit(trace),
                "limit_kind": trace.outcome.get("limit_kind"),
                "states": [state._asdict() for state in process.states],
                "above_start": [process.above_start(state)._asdict() for state in process.states[1:]],
                "readings": [reading._asdict() for reading in process.readings],
                "devices": {
                    device: {
                        "peak_bytes": process.device_peaks.get(device),
                        "readings": [reading._asdict() for reading in points],
                    }
                    for device, points in process.devices.items()
                },
                "driver": {
                    device: {
                        "peak_used_bytes": max(reading.used_bytes for reading in points),
                        "readings": [reading._asdict() for reading in points],
                    }
                    for device, points in process.driver.items()
                },
            }
            for process in process_memory(trace)
        ],
        "composition": composition_facts(trace),
        "device_peaks": device_peak_facts(trace),
        "pinned_host": pinned.to_json() if (pinned := pinned_host_memory(trace)) is not None else None,
        "merges": [each.to_json() for each in merges(trace)],
    }


def _peak_facts(trace: Trace, process: ProcessMemory, peak: Peak | None) -> dict[str, Any] | None:
    if peak is None:
        return None
    return {
        "bytes": peak.bytes,
        "time_ns": peak_time_ns(trace, process, peak),
        "span": None if (row := peak_span(trace, peak)) is None else span_index(trace).ids[row],
        "exact": peak.exact,
        "between_samples": peak.between_readings,
    }
