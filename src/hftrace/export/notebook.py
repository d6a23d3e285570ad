"""A trace in a notebook: the first screen as a piece of HTML that needs no script and no style of its own.

Notebooks drop scripts, and keep styles of one output for all others: every element has its own, in colours
that can be read on white and on black.
"""

from __future__ import annotations

from hftrace import units
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.session import session_wall_ns
from hftrace.export.page.markup import Content, Markup, tag
from hftrace.export.page.palette import family
from hftrace.render.bars import phase_amounts
from hftrace.render.findings import cost, word_of
from hftrace.render.loads import source_of, title_of
from hftrace.render.silence import silence_lines
from hftrace.render.text import BAD, GOOD
from hftrace.render.views.summary import labelled_facts, status_words
from hftrace.schema.trace import Trace

COLOURS = {
    "import": "#8296b8",
    "find": "#55a8bb",
    "fetch": "#9f84d2",
    "build": "#d3a142",
    "read": "#5aa86b",
    "change": "#9bb345",
    "move": "#d6855c",
    "wait": "#d6726f",
    "finish": "#7f8dd9",
    "use": "#43a899",
    "check": "#93a2ae",
    "step": "#b8a486",
    "other": "#9aa3ac",
}
"""Of the page's families, between its light and its dark ones."""
TONES = {GOOD: "#2c9347", BAD: "#d8434a"}
DIM = "opacity:.7"
NUMBERS = "font-variant-numeric:tabular-nums"
NAMED = 6
"""Phases that are named below the bar."""
MOST = 8
"""Findings that are listed; a page has all."""
WIDE = 400


def fragment(trace: Trace) -> Markup:
    """Returns what was loaded, what it took and cost, where the time went and what was found."""
    return tag(
        "div",
        _title(trace),
        _phases(trace),
        _facts(trace),
        _findings(trace),
        style=f"font:13px/1.5 system-ui,sans-serif;max-width:940px;{NUMBERS}",
    )


def _title(trace: Trace) -> Markup:
    status, style = status_words(trace)
    source = source_of(trace)
    return tag(
        "div",
        tag("b", title_of(trace, WIDE), style="font-size:15px"),
        tag("span", f" {source}", style=DIM) if source else None,
        tag("b", f" {status}", style=f"color:{TONES.get(style, '#b07d1a')}"),
        f" {units.duration(session_wall_ns(trace))}",
        style="margin-bottom:6px",
    )


def _phases(trace: Trace) -> Markup | None:
    """Returns one bar of all phases, with the longest named below it."""
    amounts, wall = phase_amounts(trace), session_wall_ns(trace)
    if not amounts or not wall:
        return None
    total = sum(spent for _, spent in amounts)
    boxes, at = [], 0.0
    for phase, spent in amounts:
        width = 940 * spent / total
        title = tag("title", f"{phase} {units.duration(spent)}")
        fill = COLOURS[family(phase)]
        box = f'<rect x="{at:.2f}" y="0" width="{max(0.0, width - 1):.2f}" height="14" fill="{fill}">'
        boxes.append(Markup(f"{box}{title}</rect>"))
        at += width
    names: list[Content] = [
        tag(
            "span",
            tag("span", "■ ", style=f"color:{COLOURS[family(phase)]}"),
            f"{phase} {units.duration(spent)}, {units.share(spent / wall)}",
            style="margin-right:14px;display:inline-block",
        )
        for phase, spent in amounts[:NAMED]
    ]
    rest = amounts[NAMED:]
    if rest:
        more = f"{units.count(len(rest), 'more phase')}, {units.duration(sum(spent for _, spent in rest))}"
        names.append(tag("span", more, style=f"{DIM};display:inline-block"))
    picture = tag(
        "svg",
        boxes,
        viewBox="0 0 940 14",
        width="100%",
        height="14",
        preserveAspectRatio="none",
        role="img",
        aria_label="Time by phase",
    )
    return tag("div", picture, tag("div", names, style="font-size:12px"), style="margin-bottom:8px")


def _facts(trace: Trace) -> Markup:
    cell = "text-align:left;vertical-align:top;border:0;background:none;padding:1px 14px 1px 0"
    rows = [
        tag(
            "tr",
            tag("td", label, style=f"{cell};{DIM};white-space:nowrap"),
            tag("td", value, style=f"{cell};white-space:normal"),
            style="background:none",
        )
        for label, value in labelled_facts(trace)
        if label != "loads"
    ]
    return tag("table", tag("tbody", rows), style="border-collapse:collapse;border:0;margin:0;font-size:13px")


def _findings(trace: Trace) -> Markup:
    found = findings(trace)
    if not found:
        said = " ".join("".join(text for text, _ in line) for line in silence_lines(trace, WIDE))
        return tag("div", said, style=f"margin-top:8px;{DIM}")
    entries = []
    for finding in found[:MOST]:
        word, style = word_of(finding)
        entries.append(
            tag(
                "div",
                tag("b", f"{word}: ", style=f"color:{TONES.get(style, '#b07d1a')}"),
                tag("b", finding.title),
                tag("span", f"  {cost(finding)}  {finding.rule}", style=DIM),
                tag("div", finding.evidence),
                tag("div", f"→ {finding.advice}", style=f"color:{TONES[GOOD]}"),
                style="margin-top:6px;padding-left:9px;border-left:3px solid #9aa3ac80",
            )
        )
    if len(found) > MOST:
        entries.append(tag("div", f"+ {len(found) - MOST:,} more: trace.show()", style=DIM))
    return tag("div", entries, style="margin-top:8px")
