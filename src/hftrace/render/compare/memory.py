"""Memory of each group over time on one axis, and what the peaks are made of."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison
from hftrace.analysis.compare.variants import Variant
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.time.ready import main_loads
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.timeline import resample
from hftrace.render.charts import FILE_BACKED, FULL, HOST_LAYERS, axis_text, chart, spark
from hftrace.render.compare.columns import side_by_side
from hftrace.render.compare.options import CompareOptions
from hftrace.render.text import DIM, PLAIN, STRONG, Block, Line, fit, heading, notes, shorten
from hftrace.schema.trace import Trace


def draw(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns memory over time of each group one above the other on one axis, and the parts of the peaks."""

    def lines(width: int) -> Iterable[Line]:
        yield from _curves(comparison, width)
        parts = parts_of(comparison)
        if parts:
            yield []
            yield heading("What the load's peak is made of", width)
            keys = {label: key for key, label in parts.items()}
            yield from side_by_side(
                comparison,
                [(label, "", PLAIN) for label in keys],
                lambda variant, label: part_of(variant, keys[label]),
                units.byte_count,
                units.signed_bytes,
                width,
            )
        else:
            yield from notes(["what the peaks are made of is not known: no group has an exact peak"], width)

    return [Block(lines)]


def parts_of(comparison: Comparison) -> dict[tuple[str, str], str]:
    """Returns the label of each part that any group has, the largest first."""
    sizes: dict[tuple[str, str], int] = {}
    labels: dict[tuple[str, str], str] = {}
    for variant in comparison.variants:
        for key, part in variant.memory_parts.items():
            sizes[key] = max(sizes.get(key, 0), part.bytes)
            labels.setdefault(key, part.label)
    ordered = sorted(sizes, key=lambda key: -sizes[key])
    # The same words may stand for anonymous and for file-backed memory.
    seen: dict[str, int] = {}
    for label in labels.values():
        seen[label] = seen.get(label, 0) + 1
    return {key: labels[key] if seen[labels[key]] == 1 else f"{labels[key]}, {key[1]}" for key in ordered}


def part_of(variant: Variant, key: tuple[str, str]) -> int | None:
    """Returns the bytes of a part of a group's peak; None where the group has none that are known."""
    if not variant.memory_parts:
        return None
    part = variant.memory_parts.get(key)
    return part.bytes if part is not None else 0


class _Curve(NamedTuple):
    """Memory over time of the typical run of a group, from the start of its first load."""

    variant: Variant
    start_ns: int
    end_ns: int
    points: Sequence[tuple[int, tuple[int, ...]]]
    peak_bytes: int | None


def _curve(variant: Variant) -> _Curve | None:
    trace: Trace = variant.typical
    rows = main_loads(trace)
    process = process_memory(trace)[0] if process_memory(trace) else None
    if not rows or process is None:
        return None
    start = min(span_index(trace).starts[row] for row in rows)
    end = max([span_index(trace).ends[row] for row in rows] + [right for _, right in process.busy])
    points = [
        (
            reading.time_ns,
            (reading.total_bytes, reading.anonymous_bytes, reading.file_bytes, reading.shared_bytes),
        )
        for reading in process.readings
    ]
    return _Curve(variant, start, end, points, process.peak.bytes if process.peak is not None else None)


def _curves(comparison: Comparison, width: int) -> Iterable[Line]:
    curves = [curve for curve in map(_curve, comparison.variants) if curve is not None]
    span = max((curve.end_ns - curve.start_ns for curve in curves), default=0)
    if span <= 0 or not any(curve.points for curve in curves):
        yield heading("Memory", width)
        yield [("nothing to draw: no group has readings of memory", DIM)]
        return
    labels = max(13, min(20, width // 5))
    columns = max(10, width - labels - 1)
    yield heading("Memory from the start of the load", width, f"1 column = {units.duration(span / columns)}")
    grids = []
    for curve in curves:
        whole = resample(curve.points, curve.start_ns, curve.start_ns + span, columns)
        lasts = min(columns, int((curve.end_ns - curve.start_ns) / span * columns) + 1)
        # Nothing is drawn after the end: the process was gone, or nobody looked.
        grids.append([*whole[:lasts], *([None] * (columns - lasts))])
    top = max((column[0] for row in grids for column in row if column is not None), default=0)
    if top <= 0:
        yield [("nothing to draw: no group has readings of memory", DIM)]
        return
    height = 7 if len(curves) <= 2 else 4
    for curve, row in zip(curves, grids, strict=True):
        peak = f", peak {units.byte_count(curve.peak_bytes)}" if curve.peak_bytes is not None else ""
        yield [
            (" " * (labels + 1), PLAIN),
            (shorten(curve.variant.name + peak, columns), STRONG),
        ]
        stacks = [None if column is None else column[1:] for column in row]
        yield from chart(stacks, HOST_LAYERS, top, height, labels)
        yield from _devices(curve, span, columns, labels)
    yield [(fit("time", labels) + " ", DIM), (axis_text(span, columns), DIM)]
    yield [(FULL, "cyan"), (" anonymous  ", DIM), (FILE_BACKED, "blue"), (" file-backed", DIM)]


def _devices(curve: _Curve, span: int, columns: int, labels: int) -> Iterable[Line]:
    """Yields one row for each device; each has a scale of its own."""
    process = process_memory(curve.variant.typical)[0]
    for device, points in process.devices.items():
        peak = process.device_peaks.get(device)
        values = [(reading.time_ns, reading.allocated_bytes) for reading in points]
        row = resample(values, curve.start_ns, curve.start_ns + span, columns)
        if peak:
            name = fit(f"{device} {units.byte_count(peak)}", labels)
            yield [(name + " ", DIM), (spark(row, peak), "magenta")]
