"""A bisection: its answer, what each step said, and what the two neighbours differ in."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.compare.bisection import BAD, GOOD, SKIPPED, Bisection, Step
from hftrace.analysis.compare.verdicts import Judgement
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.summary import draw as draw_comparison
from hftrace.render.compare.words import WORDS, ratio_of
from hftrace.render.screen import command_line
from hftrace.render.tables import Column, Row, table
from hftrace.render.text import BAD as RED
from hftrace.render.text import DIM, PLAIN, STRONG, WARN, Block, Line, clean, wrap

STEP_STYLES = {GOOD: PLAIN, BAD: RED, SKIPPED: DIM}


def draw(found: Bisection, options: CompareOptions | None) -> list[Block]:
    """Returns the answer, the steps, the proof, and the next command.

    Args:
        found: The bisection.
        options: Of the comparison that proves it; None where there is none.
    """
    blocks = [Block(lambda width: _answer(found, width)), _steps(found)]
    comparison = found.proof or found.ends
    if comparison is not None and options is not None:
        blocks += draw_comparison(comparison, options)
    if found.proof_directory is not None:
        blocks.append(command_line(f"hftrace compare {shlex.quote(found.proof_directory)} --view phases"))
    return blocks


def answer(found: Bisection) -> str:
    """Returns what was found, in one sentence."""
    what = found.metric.label if found.metric is not None else "the failure"
    if not found.suspects:
        verdict = found.verdict
        if verdict is None:
            return f"nothing to find: {found.bad} loads as {found.good} does"
        return f"nothing to find: of {found.bad} against {found.good}, {what} is {WORDS[verdict.verdict]}"
    if found.first_bad is None:
        last = found.suspects[-1]
        names = ", ".join(found.suspects)
        return (
            f"one of these brought {what}: {names}; what lies between {found.last_good} and {last} "
            "could not be tried"
        )
    subject = next((step.subject for step in found.steps if step.label == found.first_bad), None)
    named = f"{found.first_bad} ({subject})" if subject else found.first_bad
    if found.is_proven:
        return f"the first bad version is {named}; {found.last_good} is still good"
    return (
        f"the steps point to {named}, but beside {found.last_good} it is not worse for certain: "
        "more --repeat tells"
    )


def _answer(found: Bisection, width: int) -> Iterable[Line]:
    yield [("Bisection", STRONG), (f"  {found.good} to {found.bad}", DIM)]
    style = STRONG if found.is_proven and found.first_bad else WARN
    for line in wrap(clean(_capital(answer(found))), width):
        yield [(line, style)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _steps(found: Bisection) -> Block:
    rows = [
        Row(
            [
                clean(step.label),
                step.side,
                _figure(found, step),
                *_against(step),
                clean(step.reason or step.subject or ("between the ends" if _between(step) else "")),
            ],
            STEP_STYLES[step.side],
        )
        for step in found.steps
    ]
    label = found.metric.label if found.metric is not None else "status"
    columns = [
        Column("version"),
        Column("is", most=8),
        Column(label, right=True, most=12),
        Column("to the good", most=22, rank=1),
        Column("to the bad", most=22, rank=2),
        Column("remark", most=80, rank=3),
    ]
    note = f"{units.count(len(found.candidates), 'version')}, {units.count(len(found.steps), 'step')}"
    return table("Steps", note, columns, rows)


def _between(step: Step) -> bool:
    return step.placement is not None and step.placement.between


def _figure(found: Bisection, step: Step) -> str:
    values = sorted(step.values.get("step") or step.values.get(step.side) or ())
    if found.metric is None or not values:
        return units.UNKNOWN
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
    return units.figure(middle, found.metric.unit)


def _against(step: Step) -> list[str]:
    if step.placement is None:
        return ["", ""]
    return [_words(step.placement.against_good), _words(step.placement.against_bad)]


def _words(judgement: Judgement) -> str:
    return f"{WORDS[judgement.verdict]} {ratio_of(judgement, False)}".strip()
