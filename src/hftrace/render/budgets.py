"""Budgets as a table, as annotations of GitHub Actions, and as Markdown for its step summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hftrace import units
from hftrace.analysis.budgets import Result
from hftrace.analysis.compare.caveats import Caveat
from hftrace.render.compare.markdown import code
from hftrace.render.text import (
    BAD,
    DIM,
    GOOD,
    PLAIN,
    WARN,
    Block,
    Line,
    clean,
    fit,
    heading,
    shorten,
    width_of,
    wrap,
)

STYLES = {"ok": GOOD, "broken": BAD, "unknown": WARN}


@dataclass(frozen=True)
class Checked:
    """A trace that was held against budgets."""

    path: str
    problem: str | None
    """Why it could not be: it has no load that succeeded; None otherwise."""
    results: Sequence[Result]
    caveats: Sequence[Caveat]
    """What stands between it and the baseline."""


def amount(result: Result, value: int | None) -> str:
    """Returns a figure of a budget as people read it."""
    return units.figure(value, result.unit)


def sentence(result: Result) -> str:
    """Returns what is wrong with a budget in one sentence."""
    if result.unit == "count":
        return f"{result.option} {result.name}: {amount(result, result.found)} {result.detail}"
    asked = f"at {'least' if result.is_minimum else 'most'} {amount(result, result.maximum)} was asked"
    if result.found is None:
        return f"{result.option}: {result.name} is not known, {asked}; {result.detail}"
    return f"{result.option}: {result.name} is {amount(result, result.found)}, {asked}"


def table(checked: Sequence[Checked]) -> Block:
    """Returns one table for each trace: what was asked, what was found, and whether it holds."""

    def draw(width: int) -> Iterable[Line]:
        for number, each in enumerate(checked):
            if number:
                yield []
            yield from _table(each, width)

    return Block(draw)


def verdict(checked: Checked) -> str:
    """Returns whether the budgets of a trace are kept: which are not, and which are unknown."""
    if checked.problem is not None:
        return checked.problem
    return "; ".join(sentence(each) for each in checked.results if each.status != "ok") or "all kept"


def _table(checked: Checked, width: int) -> Iterable[Line]:
    statuses = [result.status for result in checked.results]
    bad = [(statuses.count("broken"), "not kept"), (statuses.count("unknown"), "unknown")]
    parts = [f"{number} of {len(statuses)} {word}" for number, word in bad if number]
    note = "failed" if checked.problem else ", ".join(parts) or "all kept"
    yield heading(shorten(checked.path, max(8, width - width_of(note) - 8)), width, note)
    if checked.problem is not None:
        yield from ([(part, BAD)] for part in wrap(checked.problem, width))
        return
    for caveat in checked.caveats:
        for position, part in enumerate(wrap(caveat.text, width - 2)):
            yield [("! " if not position else "  ", WARN), (part, PLAIN)]
    names = [f"{result.option} {result.name}" for result in checked.results]
    label = min(max([6, *map(width_of, names)]), max(8, width - 31))
    yield [(fit("budget", label) + f"{'asked':>11}{'found':>11}  ", DIM)]
    for name, result in zip(names, checked.results, strict=True):
        style = STYLES[result.status]
        yield [
            (fit(name, label), PLAIN),
            (fit(amount(result, result.maximum), 11, "right"), PLAIN),
            (fit(amount(result, result.found), 11, "right"), PLAIN),
            ("  " + result.status, style),
        ]
        if result.status != "ok" and result.detail:
            yield from ([("  " + part, DIM)] for part in wrap(result.detail, width - 2))


# -- GitHub Actions -----------------------------------------------------------------------------------


def escape_message(text: str) -> str:
    """Returns the message of a workflow command as GitHub wants it: ``%``, CR and LF as percent codes.

    Source: ``escapeData`` in actions/toolkit, packages/core/src/command.ts, which the documentation of
    workflow commands refers to.
    """
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Returns the value of a workflow command's property: colon and comma are escaped as well.

    Source: ``escapeProperty`` in the same file.
    """
    return escape_message(text).replace(":", "%3A").replace(",", "%2C")


def error_commands(checked: Sequence[Checked], allow_unknown: bool = False) -> list[str]:
    """Returns one ``::error`` line for each budget that is not kept, and for each trace without a load.

    Args:
        checked: The traces.
        allow_unknown: Whether a budget that a trace does not say fails no job: a ``::warning`` line then.
    """
    lines = []
    for each in checked:
        # Whatever a name holds, a second line would be a command of its own.
        title = escape_property(f"hftrace check {clean(each.path)}")
        problems = [("error", each.problem)] if each.problem is not None else []
        problems += [
            ("warning" if allow_unknown and result.status == "unknown" else "error", sentence(result))
            for result in each.results
            if result.status != "ok"
        ]
        lines += [f"::{level} title={title}::{escape_message(clean(text))}" for level, text in problems]
    return lines


def markdown(checked: Sequence[Checked]) -> str:
    """Returns the tables as GitHub Flavored Markdown, for the step summary."""
    lines = ["### hftrace check", ""]
    for each in checked:
        lines += [f"**{code(each.path)}**", ""]
        if each.problem is not None:
            lines += [code(each.problem), ""]
            continue
        lines += [f"- {code(caveat.text)}" for caveat in each.caveats]
        lines += [""] * bool(each.caveats)
        lines += ["| budget | asked | found | |", "|---|---:|---:|---|"]
        for result in each.results:
            name = code(f"{result.option} {result.name}")
            status = result.status if result.status == "ok" else f"**{result.status}** {code(result.detail)}"
            asked, found = amount(result, result.maximum), amount(result, result.found)
            lines.append(f"| {name} | {asked} | {found} | {status.strip()} |")
        lines.append("")
    return "\n".join(lines) + "\n"
