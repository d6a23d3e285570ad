"""Findings as a list with their evidence, and each as one line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hftrace import units
from hftrace.analysis.findings.registry import Finding, findings
from hftrace.analysis.findings.rules import CONCERNS, WRONG, listed_under
from hftrace.analysis.time.load_names import load_names
from hftrace.analysis.time.spans import span_index
from hftrace.render.text import (
    BAD,
    DIM,
    GOOD,
    PLAIN,
    STRONG,
    WARN,
    Block,
    Line,
    fit,
    heading,
    shorten,
    width_of,
    wrap,
)
from hftrace.schema.trace import Trace

WORD = 8
"""Columns of the word for what a finding is about."""
MAX_NUMBERS = 4
"""Loads that a finding about several names, where they do not follow one another."""


def cost(finding: Finding) -> str:
    """Returns what a finding costs in words; time first."""
    if finding.cost_ns:
        return units.duration(finding.cost_ns)
    if finding.cost_bytes:
        return units.byte_count(finding.cost_bytes)
    return ""


def order_of(found: Iterable[Finding]) -> str:
    """Returns in which order findings stand, in words."""
    return (
        "wrong ones first, then by cost" if any(listed_under(each) in WRONG for each in found) else "by cost"
    )


def word_of(finding: Finding) -> tuple[str, str]:
    """Returns the word and the style for what a finding is about; the style alone would be lost in a file."""
    concern = listed_under(finding)
    style = BAD if concern in WRONG else DIM if finding.internal else WARN
    return CONCERNS[concern].word, style


def short_list(trace: Trace, most: int) -> tuple[list[Finding], int]:
    """Returns the findings that come first, and how many come after them.

    One that says the same of several loads stands there once, with their numbers and what it costs in all.
    """
    numbers = {name.span: name.number for name in load_names(trace)}
    same: dict[tuple[str, str, bool], list[tuple[int, Finding]]] = {}
    for finding in findings(trace):
        number = numbers.get(finding.load, 0) if finding.load is not None else 0
        title = finding.title.removeprefix(f"load {number}: ")
        same.setdefault((finding.rule, title, title != finding.title), []).append((number, finding))
    shown = list(same.items())[:most]
    folded = [
        each[0][1] if len(each) == 1 or not of_load else _of_all(title, dict(each))
        for (_, title, of_load), each in shown
    ]
    return folded, len(findings(trace)) - sum(len(each) for _, each in shown)


def _of_all(title: str, found: dict[int, Finding]) -> Finding:
    """Returns what was found of several loads, by their numbers, as one finding."""
    numbers = sorted(found)
    first, last = numbers[0], numbers[-1]
    if last - first + 1 == len(numbers) > 2:
        named = f"{first}\N{EN DASH}{last}"
    else:
        rest = len(numbers) - MAX_NUMBERS
        named = ", ".join(map(str, numbers[:MAX_NUMBERS])) + (f" and {rest:,} more" if rest > 0 else "")
    return replace(
        found[first],
        title=f"loads {named}: {title}",
        cost_ns=sum(each.cost_ns or 0 for each in found.values()) or None,
        cost_bytes=sum(each.cost_bytes or 0 for each in found.values()) or None,
    )


def finding_line(finding: Finding, width: int) -> Line:
    """Returns a finding on one line: what it is about, what it costs, and its title."""
    price = cost(finding)
    word, style = word_of(finding)
    head = fit(price, max(9, width_of(price)), "right")
    return [
        ("! ", style),
        (fit(word, WORD), style),
        (head + "  ", STRONG),
        (shorten(finding.title, width - WORD - width_of(head) - 4), PLAIN),
    ]


def finding_list(trace: Trace) -> Block:
    """Returns all findings with their evidence and what to change."""
    # Rules look at loads: that they found nothing says nothing of a session without one.
    nothing = "none" if span_index(trace).load_rows else "there is no load to look at"
    return Block(lambda width: _lines(findings(trace), nothing, width))


def _lines(found: list[Finding], nothing: str, width: int) -> Iterable[Line]:
    hint = f"{order_of(found)}; hftrace explain {found[0].rule} says more" if found else ""
    yield heading("Findings", width, hint)
    if not found:
        yield [(nothing, DIM)]
    for finding in found:
        price = cost(finding)
        word, style = word_of(finding)
        title = shorten(finding.title, width - width_of(price) - width_of(word) - width_of(finding.rule) - 8)
        yield [
            ("! ", style),
            (f"{word}: ", style),
            (title, STRONG),
            (f"  {price}" if price else "", WARN),
            (f"  {finding.rule}", DIM),
        ]
        for part in wrap(finding.evidence, width - 2):
            yield [("  " + part, PLAIN)]
        for number, part in enumerate(wrap(finding.advice, width - 4)):
            yield [("  " + ("→ " if not number else "  "), GOOD), (part, GOOD)]
