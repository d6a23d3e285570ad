"""Memory over time: what was resident, what the load added to it, and what the peak was made of.

Anonymous, file-backed and shared memory are stacked in one chart, because the
limit is one for all of them, and told apart by glyph as well as by colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hftrace import units
from hftrace.analysis.memory import usage
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.facts import composition_facts, device_peak_facts, peak_time_ns
from hftrace.analysis.memory.peaks import integer
from hftrace.analysis.memory.usage import Panel, Peak, ProcessMemory, process_memory
from hftrace.analysis.time.spans import span_index, thread_names
from hftrace.analysis.time.timeline import dominant, resample, stretches_by_lane
from hftrace.render.composition import device_composition, host_composition
from hftrace.render.peak import when
from hftrace.render.text import (
    BAD,
    DIM,
    PLAIN,
    STRONG,
    WARN,
    Block,
    Line,
    clean,
    fit,
    heading,
    legend,
    notes,
    shorten,
    width_of,
)
from hftrace.render.views.timeline import axis_text, lane_line, spark
from hftrace.schema.model import Trace

FULL, HALF = "█", "▄"
FILE_BACKED, SHARED = "▒", "░"
HOST_LAYERS = (
    (FULL, "cyan", "anonymous"),
    (FILE_BACKED, "blue", "file-backed"),
    (SHARED, "magenta", "shared"),
)
DEVICE_LAYERS = ((FULL, "magenta", "allocated"), (SHARED, "magenta", "reserved, and free"))
DEVICE_CHARTS = 2
"""With more devices than this, each has a row instead of a chart."""
LIMIT_IN_SIGHT = 1.6
"""A limit that is further above the peak than this would flatten the chart: it is said, not drawn."""
ROUND_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)


def memory_view(trace: Trace) -> Block:
    """Returns charts of memory over time, figures above the start, and the parts of the peak."""

    def draw(width: int) -> Iterable[Line]:
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

    return Block(draw)


# -- charts ---------------------------------------------------------------------------------------


def _process(trace: Trace, process: ProcessMemory, several: bool, width: int) -> Iterable[Line]:
    title = f"Memory of rank {process.rank}" if several else "Memory"
    labels = max(13, min(20, width // 5))
    panels = usage.panels(process, max(10, width - labels - 1))
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
                axis_text(panel.end_ns - panel.start_ns, panel.cells, panel.zero_ns - panel.start_ns),
                panel.cells,
            )
            for panel in panels
        ]
        yield [(fit("time", labels) + " ", DIM), (" ".join(axes), DIM)]
        yield from _keys(process)
        yield from legend(used, width)
        yield from notes(_remarks(trace, process), width)
    if process.states:
        yield []
        yield from _states(process, width)


def _scale(panels: list[Panel]) -> str:
    """Returns how much time a column stands for; the loads' panels first."""
    steps = {
        panel.name: units.duration((panel.end_ns - panel.start_ns) / panel.cells)
        for panel in sorted(panels, key=lambda panel: panel.end_ns - panel.start_ns)
        if panel.cells
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
    line: Line = [(fit(clean(name), labels) + " ", DIM)]
    for number, panel in enumerate(panels):
        if number:
            line.append(("│", DIM))
        row = dominant(stretches, panel.start_ns, panel.end_ns, panel.cells)
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
        columns += resample(points, panel.start_ns, panel.end_ns, panel.cells)
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
            return offset + min(panel.cells - 1, int(share * panel.cells))
        offset += panel.cells + 1
    # A process is sampled until it has ended, which is a little longer than its last span.
    return offset - 2 if time_ns is not None and panels and time_ns > panels[-1].end_ns else None


def _peak_line(
    trace: Trace, process: ProcessMemory, peak: Peak, column: int, labels: int, cells: int
) -> Line:
    text = f"peak {units.byte_count(peak.bytes)}"
    where = when(trace, peak_time_ns(trace, process, peak), None)
    if where and width_of(text) + width_of(where) + 4 <= cells // 2:
        text += f", {where}"
    if column >= cells // 2:
        room = column
        return [(" " * (labels + 1), PLAIN), (fit(text + " ", room, "right") + "↓", WARN)]
    return [(" " * (labels + 1 + column), PLAIN), (f"↓ {shorten(text, cells - column - 2)}", WARN)]


def chart(
    stacks: Sequence[tuple[int, ...] | None],
    layers: Sequence[tuple[str, str, str]],
    top: int,
    height: int,
    labels: int,
    borders: Sequence[int] = (),
    limit: int | None = None,
    peak: tuple[int, int] | None = None,
) -> Iterable[Line]:
    """Yields the rows of a stacked chart, from the top; the edges of its rows are round numbers of bytes.

    Args:
        stacks: Bytes of each layer in each column, from the bottom.
        layers: Glyph, style and name of each layer.
        top: Bytes that the chart must have room for.
        height: The most rows it may have.
        labels: Width of what stands left of it.
        borders: Columns between two panels.
        limit: Bytes at which a line is drawn across.
        peak: A column, and bytes that it reached although no stack shows it.
    """
    unit = _row_unit(top, height)
    rows = max(1, -(-top // unit))
    limit_row = None if limit is None else min(rows, max(1, -(-limit // unit)))
    fence = set(borders)
    for row in range(rows, 0, -1):
        low, high = (row - 1) * unit, row * unit
        label, style = (units.byte_count(high) if row % 2 == 0 or rows < 4 else ""), DIM
        if row == limit_row:
            label, style = f"limit {units.byte_count(limit)}", BAD
        line: Line = [(fit(label, labels, "right"), style), ("│", DIM)]
        for number, stack in enumerate(stacks):
            glyph, style = _cell(stack, layers, low, high)
            if glyph == " " and number in fence:
                glyph, style = "│", DIM
            elif glyph == " " and peak is not None and number == peak[0] and low < peak[1]:
                glyph, style = "│", WARN
            elif glyph == " " and row == limit_row:
                glyph, style = "━", BAD
            if line and line[-1][1] == style and len(line) > 2:
                line[-1] = (line[-1][0] + glyph, style)
            else:
                line.append((glyph, style))
        yield line


def _cell(
    stack: tuple[int, ...] | None, layers: Sequence[tuple[str, str, str]], low: int, high: int
) -> tuple[str, str]:
    """Returns glyph and style of one cell: the layer that has most of it, blank where little is covered."""
    if stack is None:
        return " ", PLAIN
    bottom = most = covered = best = 0
    for number, size in enumerate(stack):
        overlap = min(bottom + size, high) - max(bottom, low)
        bottom += max(0, size)
        if overlap > 0:
            covered += overlap
            if overlap > most:
                most, best = overlap, number
    share = covered / (high - low)
    # Half a cell is the finest step: eighths would have no stand-ins that ASCII could tell apart.
    if share < 0.25 and not (low == 0 and share > 0):
        return " ", PLAIN
    glyph, style, _ = layers[best]
    if share < 0.75 and glyph == FULL:
        return HALF, style
    return (glyph, style) if share >= 0.5 or low == 0 else (" ", PLAIN)


def _row_unit(top: int, height: int) -> int:
    """Returns the least round number of bytes that ``height`` rows of it reach ``top``."""
    power = 1
    while True:
        for factor in ROUND_STEPS:
            unit = factor * power
            if unit * height >= top and unit == int(unit):
                return int(unit)
        power *= 10


def _devices(process: ProcessMemory, panels: list[Panel], labels: int, width: int) -> Iterable[Line]:
    for device, points in process.devices.items():
        peak = process.device_peaks.get(device)
        columns = _columns(
            [(reading.time_ns, (reading.reserved_bytes, reading.allocated_bytes)) for reading in points],
            panels,
        )
        highest = max([peak or 0, *(column[0] for column in columns if column)], default=0)
        name = f"{clean(device)} {units.byte_count(peak)}"
        if highest <= 0:
            continue
        if len(process.devices) > DEVICE_CHARTS:
            row = [column[1] if column else None for column in columns]
            yield [(fit(name, labels) + " ", DIM), (spark(row, highest), DEVICE_LAYERS[0][1])]
            continue
        yield [(fit("", labels) + " ", DIM), (f"{clean(device)}, peak {units.byte_count(peak)}", STRONG)]
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


def _remarks(trace: Trace, process: ProcessMemory) -> list[str]:
    remarks = []
    peak = process.peak
    if peak is not None:
        text = f"peak: {units.byte_count(peak.bytes)}"
        where = when(trace, peak_time_ns(trace, process, peak), peak.span)
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
        remarks.append(text)
    limit, kind = _limit(trace), trace.outcome.get("limit_kind")
    if limit is not None and peak is not None and limit > LIMIT_IN_SIGHT * peak.bytes:
        named = f" ({clean(kind)})" if kind else ""
        share = units.share(peak.bytes / limit)
        remarks.append(f"limit: {units.byte_count(limit)}{named}, far above: the peak is {share} of it")
    if not len(trace.samples):
        remarks.append("no samples: the chart has the edges of spans alone")
    return remarks


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
            yield [(fit(clean(name), names), PLAIN), (cells, STRONG if state.name == "peak" else PLAIN)]


# -- facts ----------------------------------------------------------------------------------------


def facts(trace: Trace) -> dict[str, Any]:
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
            }
            for process in process_memory(trace)
        ],
        "composition": composition_facts(trace),
        "device_peaks": device_peak_facts(trace),
    }


def _peak_facts(trace: Trace, process: ProcessMemory, peak: Peak | None) -> dict[str, Any] | None:
    if peak is None:
        return None
    return {
        "bytes": peak.bytes,
        "time_ns": peak_time_ns(trace, process, peak),
        "span": None if peak.span is None else span_index(trace).ids[peak.span],
        "exact": peak.exact,
        "between_samples": peak.between_readings,
    }
