"""The timeline: one lane per thread, memory under it, all on one axis of time.

Phases are told apart by their words and letters; colour only helps.
"""

from __future__ import annotations

from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.timeline import Timeline, coverage, dominant, resample, timeline
from hftrace.render.text import (
    DENSITY,
    DIM,
    HEIGHT,
    PLAIN,
    WARN,
    Block,
    Line,
    clean,
    fit,
    heading,
    legend,
    notes,
    phase_letter,
    phase_style,
    width_of,
)
from hftrace.schema.trace import Trace

LANES = 6
"""Lanes of each sort on the default screen."""


def timeline_view(trace: Trace, whole: bool = False, explain: Iterable[str] = ()) -> Block:
    """Returns the timeline.

    Args:
        trace: The trace.
        whole: Draws all lanes from the first import on. Otherwise there are
            some lanes of each sort, and imports that took longer than the
            loads themselves are left out; what is left out is said.
        explain: Further phases to have in the legend.
    """
    made = timeline(trace)
    extra = frozenset(explain)
    left_out = 0 if whole else _imports_before(trace, made)
    if left_out:
        made = made._replace(start_ns=made.start_ns + left_out)
    return Block(lambda width: _draw(trace, made, None if whole else LANES, left_out, extra, width))


def _imports_before(trace: Trace, made: Timeline) -> int:
    """Returns the time before the first load where it is most of all time, else 0."""
    first = min((span_index(trace).starts[row] for row in span_index(trace).load_rows), default=made.start_ns)
    before = first - made.start_ns
    return before if made.end_ns > first and before > 0.5 * (made.end_ns - made.start_ns) else 0


def _draw(
    trace: Trace, made: Timeline, limit: int | None, left_out: int, extra: frozenset[str], width: int
) -> Iterable[Line]:
    labels = max(13, min(20, width // 5))
    cells = max(10, width - labels - 1)
    span = made.end_ns - made.start_ns
    if span <= 0 or not made.spans:
        yield heading("Timeline", width)
        yield [("nothing to draw: this trace has no time in it", DIM)]
        return
    note = f"1 column = {units.duration(span / cells)}"
    yield heading("Timeline", width, note + ("; memory peaks at the left" if width >= 60 else ""))
    if left_out:
        yield from notes([f"+ {units.duration(left_out)} of imports before the load: --view timeline"], width)
    used: set[str] = set()
    for number, lane in enumerate(made.spans[:limit]):
        row = dominant(lane.stretches, made.start_ns, made.end_ns, cells)
        used.update(phase for phase in row if phase)
        yield [(fit(clean(lane.name), labels) + " ", DIM), *lane_line(row)]
        if number == 0 and made.waits:
            shares = coverage(made.waits, made.start_ns, made.end_ns, cells)
            yield [(fit("  waiting", labels) + " ", DIM), (_density(shares), WARN)]
    for reader in made.reads[:limit]:
        shares = coverage(reader.stretches, made.start_ns, made.end_ns, cells)
        yield [(fit(clean(reader.name), labels) + " ", DIM), (_density(shares), phase_style("weights"))]
    if limit is not None:
        rest = max(0, len(made.spans) - limit) + max(0, len(made.reads) - limit)
        if rest:
            yield [(f"+ {units.count(rest, 'more thread')}: --view timeline", DIM)]
    yield from _memory(trace, made, labels, cells)
    yield [(fit("time", labels) + " ", DIM), (axis_text(span, cells), DIM)]
    used.update(extra)
    yield from legend(used, width)
    if made.reads or made.waits:
        yield [
            ("░▒▓█", phase_style("weights")),
            (" share of the column spent reading", DIM),
            *([(" or ", DIM), ("waiting", WARN), (" for reads", DIM)] if made.waits else []),
        ]


def lane_line(row: list[str | None]) -> Line:
    """Returns one lane: each run of a phase starts with its word, or its letter where that does not fit."""
    line: Line = []
    position = 0
    while position < len(row):
        end = position
        while end < len(row) and row[end] == row[position]:
            end += 1
        phase, length = row[position], end - position
        position = end
        if phase is None:
            line.append((" " * length, PLAIN))
            continue
        word = "unattributed" if phase == "load" else clean(phase)
        head = word if width_of(word) + 1 < length else phase_letter(phase)
        style = phase_style(phase)
        fill = "·" if phase == "load" else "━"
        line.append((head, f"bold {style}" if style != DIM else style))
        line.append((fill * (length - width_of(head)), style))
    return line


def _density(shares: list[float]) -> str:
    # Anything above nothing shows: a short read must not vanish.
    return "".join(
        DENSITY[0] if share <= 0.01 else DENSITY[min(4, 1 + int(share * 3.999))] for share in shares
    )


def _memory(trace: Trace, made: Timeline, labels: int, cells: int) -> Iterable[Line]:
    """Yields a row for each kind of memory of the main process; the label has its peak in the whole trace."""
    process = next(iter(process_memory(trace)), None)
    if process is None:
        return
    rows = []
    if process.readings:
        for title, style, points in (
            ("anon", "cyan", [(reading.time_ns, reading.anonymous_bytes) for reading in process.readings]),
            ("file", "blue", [(reading.time_ns, reading.file_bytes) for reading in process.readings]),
        ):
            rows.append((title, style, points, max(size for _, size in points)))
        # Anonymous and file-backed memory share a scale, so that their heights compare.
        top = max(peak for *_, peak in rows)
    for device, taken in process.devices.items():
        points = [(reading.time_ns, reading.allocated_bytes) for reading in taken]
        rows.append((clean(device), "magenta", points, process.device_peaks[device]))
    for number, (title, style, points, peak) in enumerate(rows):
        row = resample(points, made.start_ns, made.end_ns, cells)
        if all(value is None for value in row):
            continue
        size = units.byte_count(peak)
        label = fit(title, max(1, labels - width_of(size) - 1)) + " " + size
        scale = top if process.readings and number < 2 else peak
        yield [(fit(label, labels) + " ", DIM), (spark(row, scale), style)]


def spark(row: list[int | None], top: int) -> str:
    """Returns values as one line of bars, the highest of which stands for ``top``."""
    if top <= 0:
        return " " * len(row)
    return "".join(
        " " if value is None else HEIGHT[max(1, min(8, -(-value * 8 // top)))] if value > 0 else HEIGHT[0]
        for value in row
    )


def axis_text(span_ns: int, cells: int, before_ns: int = 0) -> str:
    """Returns the axis of time, with round numbers under their columns.

    Args:
        span_ns: The time that the axis stands for.
        cells: How many columns it has.
        before_ns: How much of that time comes before zero.
    """
    after_ns = span_ns - before_ns
    step = _round_step(span_ns / max(2, cells // 14))
    text = [" "] * cells
    tick = 0
    while tick * step <= after_ns:
        at = round((before_ns + tick * step) / span_ns * cells)
        label = "0" if not tick else units.duration(tick * step)
        label = _plain(label)
        if at + len(label) < cells and all(
            character == " " for character in text[max(0, at - 1) : at + len(label) + 2]
        ):
            text[at : at + len(label) + 1] = list("│" + label)
        tick += 1
    return "".join(text).rstrip()


def _plain(label: str) -> str:
    """Drops zeros that a round number does not need: ``1.00 s`` is ``1 s``."""
    number, _, unit = label.partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {unit}"


def _round_step(least_ns: float) -> int:
    """Returns the smallest of 1, 2, 5, 10, 20, ... that is at least ``least_ns``; whole minutes above one."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            candidate = step * factor
            if candidate >= least_ns and candidate < 60 * 10**9:
                return candidate
        step *= 10
        if step >= 60 * 10**9:
            break
    minutes = 1
    while minutes * 60 * 10**9 < least_ns:
        minutes *= 2
    return minutes * 60 * 10**9
