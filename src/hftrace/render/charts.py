"""Lanes, bars and stacked charts on one axis of time, which several views draw."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from hftrace import units
from hftrace.render.text import (
    BAD,
    DIM,
    HEIGHT,
    PLAIN,
    WARN,
    Line,
    clean,
    fit,
    phase_letter,
    phase_style,
    shorten,
    width_of,
)

FULL, HALF = "█", "▄"
FILE_BACKED, SHARED = "▒", "░"
HOST_LAYERS = (
    (FULL, "cyan", "anonymous"),
    (FILE_BACKED, "blue", "file-backed"),
    (SHARED, "magenta", "shared"),
)
DEVICE_LAYERS = ((FULL, "magenta", "allocated"), (SHARED, "magenta", "reserved, and free"))
ROUND_STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)


def _runs(row: list[str | None]) -> Iterator[tuple[str | None, int, int]]:
    """Yields each run of equal columns: what is in it, where it ends, how long it is."""
    end = 0
    for value, columns in itertools.groupby(row):
        length = len(list(columns))
        end += length
        yield value, end, length


def lane_line(row: list[str | None]) -> Line:
    """Returns one lane: each run of a phase starts with its word, or its letter where that does not fit."""
    line: Line = []
    for phase, _, length in _runs(row):
        if phase is None:
            line.append((" " * length, PLAIN))
            continue
        word = "unattributed" if phase == "load" else phase
        head = word if width_of(word) + 1 < length else phase_letter(phase)
        style = phase_style(phase)
        fill = "·" if phase == "load" else "━"
        line.append((head, f"bold {style}" if style != DIM else style))
        line.append((fill * (length - width_of(head)), style))
    return line


def named_line(row: list[str | None], style: str) -> Line:
    """Returns one lane of names: each run starts with as much of its name as fits."""
    line: Line = []
    for name, end, length in _runs(row):
        if name is None:
            line.append((" " * length, PLAIN))
            continue
        # One column stays free before another name, so that two never run into one another.
        room = length if end == len(row) or row[end] is None else length - 1
        head = shorten(clean(name), room) if room > 2 else ""
        line.append((head, f"bold {style}"))
        line.append(("━" * (length - width_of(head)), style))
    return line


def spark(row: list[int | None], top: int) -> str:
    """Returns values as one line of bars, the highest of which stands for ``top``."""
    if top <= 0:
        return " " * len(row)
    return "".join(
        " " if value is None else HEIGHT[max(1, min(8, -(-value * 8 // top)))] if value > 0 else HEIGHT[0]
        for value in row
    )


def axis_text(span_ns: int, columns: int, before_ns: int = 0) -> str:
    """Returns the axis of time, with round numbers under their columns.

    Args:
        span_ns: The time that the axis stands for.
        columns: How many it has.
        before_ns: How much of that time comes before zero.
    """
    after_ns = span_ns - before_ns
    step = _round_step(span_ns / max(2, columns // 14))
    text = [" "] * columns
    tick = 0
    while tick * step <= after_ns:
        at = round((before_ns + tick * step) / span_ns * columns)
        label = "0" if not tick else units.duration(tick * step)
        label = _plain(label)
        if at + len(label) < columns and all(
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
