"""A search for the best call: the call, its proof, and what each setting contributed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.compare.ranking import ranking
from hftrace.analysis.compare.tuning import Tried, Tuning
from hftrace.analysis.compare.verdicts import Judgement
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.summary import draw as draw_comparison
from hftrace.render.compare.words import WORDS, ratio_of
from hftrace.render.screen import command_line
from hftrace.render.tables import Column, Row, table
from hftrace.render.text import DIM, GOOD, PLAIN, STRONG, WARN, Block, Line, clean, notes, wrap

WITH_REMARKS = 90
"""Columns that the table takes without what there is to say of each setting."""
OBJECTIVES = {
    "returned_ns": "the time until the call returned",
    "ready_ns": "the time until the model was ready",
    "rss_anon_peak_bytes": "the peak of anonymous memory",
}


def draw(found: Tuning) -> list[Block]:
    """Returns the answer, the call as a program, what each setting did, the proof, and the next command."""
    blocks = [Block(lambda width: _answer(found, width))]
    if found.best is not None:
        # A program that is cut cannot be pasted.
        program = found.best.python()
        blocks.append(
            Block(lambda width: [[(clean(line), PLAIN)] for line in program.splitlines()], cropped=False)
        )
    blocks.append(_settings(found))
    if found.proof is not None:
        blocks += draw_comparison(found.proof, CompareOptions(ranking(found.proof, found.metric), None))
    if found.proof_directory is not None:
        blocks.append(command_line(f"hftrace compare {shlex.quote(found.proof_directory)} --view ranking"))
    return blocks


def answer(found: Tuning) -> str:
    """Returns what was found, in one sentence."""
    what = OBJECTIVES.get(found.metric.key, found.metric.label)
    if found.best is None:
        limit = units.byte_count(found.max_peak_bytes)
        return f"no call was found whose peak of anonymous memory stays under {limit}"
    if not found.settings:
        return f"nothing is better than the call as it is by more than noise, for {what}"
    verdict = found.verdict
    ratio = ratio_of(verdict, False) if verdict is not None else ""
    named = ", ".join(found.settings)
    if found.is_better:
        return f"{what} is better {ratio} with {named}"
    return f"{named} keeps to the limit of memory, which the call as it is does not; {what} is {ratio}"


def _answer(found: Tuning, width: int) -> Iterable[Line]:
    spent, budget = (units.duration(each * 1e9) for each in (found.spent_seconds, found.budget_seconds))
    yield [("Tuning", STRONG), (f"  for {found.objective}, {spent} of {budget}", DIM)]
    text = answer(found)
    for line in wrap(clean(text[:1].upper() + text[1:]), width):
        yield [(line, GOOD if found.is_better else STRONG if found.best is not None else WARN)]
    if found.equal is not None and found.settings:
        for line in wrap(f"the model is the same: {found.equal.how}", width):
            yield [(line, DIM)]
    yield from notes(found.notes, width)


def _settings(found: Tuning) -> Block:
    return Block(lambda width: _table_of_settings(found, width))


def _table_of_settings(found: Tuning, width: int) -> list[Line]:
    columns = [
        Column("setting"),
        Column("alone", most=20),
        Column("without it", most=20, rank=2),
        Column("anon peak", right=True, most=10, rank=1),
    ]
    rows = [
        Row(
            [
                clean(tried.name),
                _words(tried.alone),
                _words(tried.left_out),
                units.byte_count(tried.peak_bytes) if tried.peak_bytes is not None else units.UNKNOWN,
            ],
            STRONG if tried.name in found.settings else PLAIN,
        )
        for tried in found.tried
    ]
    remarks = [_remark(tried) for tried in found.tried]
    note = "against the call as it is; without it: the answer's, but for this one"
    if remarks and width >= WITH_REMARKS + max(map(len, remarks)):
        rows = [Row([*row.cells, remark], row.style) for row, remark in zip(rows, remarks, strict=True)]
        return table("Settings", note, [*columns, Column("remark", most=100)], rows).lines(width)
    # Why one was not tried is what the reader asks: where there is no room beside it, it stands below.
    below = [f"{clean(tried.name)}: {remark}" for tried, remark in zip(found.tried, remarks, strict=True)]
    return table("Settings", note, columns, rows, below).lines(width)


def _remark(tried: Tried) -> str:
    parts = [tried.reason or "in the answer"]
    if tried.origin is not None:
        parts.append(f"advised by {tried.origin}")
    return clean("; ".join(parts))


def _words(judgement: Judgement | None) -> str:
    return "" if judgement is None else f"{WORDS[judgement.verdict]} {ratio_of(judgement, False)}".strip()
