"""What a notebook shows of a trace: a summary, a small picture and the findings, as HTML without a script.

Notebooks take style sheets and scripts out of what they do not trust, so every element has its own style,
and inherits the notebook's fonts and colours.
"""

from __future__ import annotations

from collections.abc import Iterator

from hftrace import units
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.time.session import session_wall_ns
from hftrace.analysis.time.timeline import Timeline, coverage, dominant, resample, timeline
from hftrace.export.page.markup import Markup, tag
from hftrace.export.page.palette import family
from hftrace.render.findings import cost, order_of, word_of
from hftrace.render.loads import source_of, title_of
from hftrace.render.silence import silence_lines
from hftrace.render.text import BAD, GOOD
from hftrace.render.views.summary import labelled_facts, status_words
from hftrace.render.views.timeline import imports_before
from hftrace.schema.trace import Trace

COLORS = {
    "import": "#93a6c6",
    "find": "#62b2c4",
    "fetch": "#ab90dc",
    "build": "#e0ae52",
    "read": "#67b276",
    "change": "#abc153",
    "move": "#e18e66",
    "wait": "#df7e7b",
    "finish": "#8c9ae3",
    "use": "#4cb3a4",
    "check": "#a2b0bb",
    "step": "#c7b498",
    "other": "#c4cad1",
}
"""Of each sort of phase: middle tones, which stand out from a light and from a dark ground."""
ANONYMOUS, FILE, DEVICE = "#2d86c9", "#7fb6e6", "#b0539a"
TONES = {GOOD: "#1a7f37", BAD: "#c01f2c"}
AMBER = "#b07a00"
WIDE = 400
"""Cells for texts that fit themselves to a screen: the notebook wraps them itself."""
COLUMNS, LABEL, PIXEL = 560, 150, 1
"""Of the picture: columns of time, and the room for labels, in its own units."""
LANE, GAP, CHART = 14, 4, 34
UNTRUSTED = "Threads and memory over time. An untrusted notebook has the words of the picture alone: "
"""What is left of the picture begins with it, where a notebook takes drawings out."""
LANES = 4
FINDINGS = 6
NAMED = 8
"""Phases in the legend."""


def cell(trace: Trace) -> str:
    """Returns the HTML of a trace."""
    status, style = status_words(trace)
    source = source_of(trace)
    return tag(
        "div",
        tag(
            "div",
            tag("b", title_of(trace, WIDE)),
            tag("span", f"  {source}", style="opacity:.7") if source else None,
            tag(
                "b",
                f"  {status}  {units.duration(session_wall_ns(trace))}",
                style=f"color:{TONES.get(style, AMBER)}",
            ),
            style="margin-bottom:6px;white-space:pre-wrap",
        ),
        _facts(trace),
        _picture(trace),
        _findings(trace),
        style="font-size:13px;line-height:1.45;max-width:900px;overflow-wrap:anywhere",
    )


def _facts(trace: Trace) -> Markup:
    rows = [
        tag(
            "tr",
            tag("td", label, style=f"{_CELL};opacity:.7;white-space:nowrap"),
            tag("td", value, style=_CELL),
            style="background:none",
        )
        for label, value in labelled_facts(trace)
        if label != "loads"
    ]
    return tag("table", rows, style="border-collapse:collapse;margin:0 0 8px;font-size:inherit;color:inherit")


_CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;border:0"


def _findings(trace: Trace) -> Markup:
    found = findings(trace)
    if not found:
        said = " ".join("".join(text for text, _ in line) for line in silence_lines(trace, WIDE))
        return tag("div", said, style="opacity:.75")
    rows = []
    for each in found[:FINDINGS]:
        price = cost(each)
        color = {"error": TONES[BAD], "warning": AMBER}.get(each.severity, "inherit")
        rows.append(
            tag(
                "li",
                tag("b", {"error": "✗ ", "warning": "! "}.get(each.severity, "i "), style=f"color:{color}"),
                tag("b", f"{word_of(each)[0]}  {price}" if price else word_of(each)[0]),
                f"  {each.title} ({each.rule}) ",
                tag("div", each.evidence, style="opacity:.75;padding-left:14px"),
                tag("div", f"→ {each.advice}", style=f"color:{TONES[GOOD]};padding-left:14px"),
                style="list-style:none;margin:2px 0",
            )
        )
    rest = len(found) - len(rows)
    more = tag("div", f"+ {units.count(rest, 'more finding')}: trace.show()", style="opacity:.7")
    return tag(
        "div",
        tag("b", "Findings"),
        tag("span", f", {order_of(found)}", style="opacity:.7"),
        tag("ul", rows, style="margin:2px 0 0;padding:0"),
        more if rest else None,
    )


def _picture(trace: Trace) -> Markup | None:
    """Returns lanes of threads, and memory under them on the same axis; None where there is no time in it."""
    made = timeline(trace)
    before = imports_before(trace, made)
    made = made._replace(start_ns=made.start_ns + before)
    if made.end_ns <= made.start_ns or not made.spans:
        return None
    parts: list[Markup] = []
    top = 0
    seen: dict[str, None] = {}
    for lane in made.spans[:LANES]:
        row = dominant(lane.stretches, made.start_ns, made.end_ns, COLUMNS)
        seen.update(dict.fromkeys(phase for phase in row if phase))
        parts += [_label(lane.name, top), *_boxes(row, top)]
        top += LANE + GAP
    for reader in made.reads[:LANES]:
        shares = coverage(reader.stretches, made.start_ns, made.end_ns, COLUMNS)
        parts += [_label(reader.name, top), *_shades(shares, top)]
        top += LANE + GAP
    hidden = max(0, len(made.spans) - LANES) + max(0, len(made.reads) - LANES)
    for chart in _memory(trace, made, top):
        parts.append(chart)
        top += CHART + GAP
    parts += [
        _text(LABEL, top + 10, f"{units.duration(before)} after the start" if before else "0"),
        _text(LABEL + COLUMNS, top + 10, units.duration(made.end_ns - made.start_ns), anchor="end"),
    ]
    svg = tag(
        "svg",
        tag("title", UNTRUSTED),
        parts,
        viewBox=f"0 0 {LABEL + COLUMNS} {top + 14}",
        style="width:100%;max-width:900px;display:block;font:11px sans-serif",
        role="img",
        aria_label="Threads and memory over time; the table above has the figures",
    )
    legend = [
        tag(
            "span",
            tag("span", "■ ", style=f"color:{COLORS[family(phase)]}"),
            phase,
            style="margin-right:12px;white-space:nowrap",
        )
        for phase in list(seen)[:NAMED]
    ]
    said = f"+ {units.count(hidden, 'more thread')}" if hidden else None
    return tag("div", svg, tag("div", legend, said, style="opacity:.85"), style="margin:0 0 8px")


def _text(x: int, y: int, words: str, anchor: str = "start") -> Markup:
    # Where only the words are left of a picture, the space keeps them apart.
    return tag("text", f"{words} ", x=x, y=y, text_anchor=anchor, fill="currentColor", opacity=".75")


def _label(words: str, top: int) -> Markup:
    return _text(0, top + LANE - 3, words if len(words) <= 22 else f"{words[:21]}…")


def _boxes(row: list[str | None], top: int) -> Iterator[Markup]:
    """Yields a rectangle for each run of columns with one phase."""
    began = 0
    for at in range(1, len(row) + 1):
        if at == len(row) or row[at] != row[began]:
            phase = row[began]
            if phase is not None:
                yield tag(
                    "rect",
                    x=LABEL + began * PIXEL,
                    y=top,
                    width=(at - began) * PIXEL,
                    height=LANE,
                    fill=COLORS[family(phase)],
                )
            began = at


def _shades(shares: list[float], top: int) -> Iterator[Markup]:
    """Yields when a thread read, as dense as it did."""
    tenths = [round(10 * share) or (1 if share > 0.01 else 0) for share in shares]
    began = 0
    for at in range(1, len(tenths) + 1):
        if at == len(tenths) or tenths[at] != tenths[began]:
            if tenths[began]:
                yield tag(
                    "rect",
                    x=LABEL + began * PIXEL,
                    y=top,
                    width=(at - began) * PIXEL,
                    height=LANE,
                    fill=COLORS["read"],
                    opacity=tenths[began] / 10,
                )
            began = at


def _memory(trace: Trace, made: Timeline, top: int) -> Iterator[Markup]:
    """Yields an area for each kind of memory of the main process; the label has its peak."""
    process = next(iter(process_memory(trace)), None)
    if process is None:
        return
    series = []
    if process.readings:
        kinds = (
            ("anonymous", ANONYMOUS, [(each.time_ns, each.anonymous_bytes) for each in process.readings]),
            ("file-backed", FILE, [(each.time_ns, each.file_bytes) for each in process.readings]),
        )
        # Both kinds share a scale, so that their heights compare.
        scale = max(size for _, _, points in kinds for _, size in points)
        for name, color, points in kinds:
            series.append((name, color, points, max(size for _, size in points), scale))
    for device, taken in process.devices.items():
        points = [(each.time_ns, each.allocated_bytes) for each in taken]
        peak = process.device_peaks[device]
        series.append((device, DEVICE, points, peak, peak))
    for name, color, points, peak, scale in series:
        row = resample(points, made.start_ns, made.end_ns, COLUMNS)
        if not scale or all(value is None for value in row):
            continue
        line = " ".join(
            f"{LABEL + at},{top + CHART - CHART * min(1.0, (value or 0) / scale):.1f}"
            for at, value in enumerate(row)
        )
        ends = f"{LABEL},{top + CHART} {line} {LABEL + COLUMNS - 1},{top + CHART}"
        yield tag(
            "g",
            _text(0, top + 12, name),
            _text(0, top + 26, units.byte_count(peak)),
            tag("polygon", points=ends, fill=color, opacity=".8"),
        )
        top += CHART + GAP
