"""All groups of a comparison as one table, best first, and the call that makes the best one."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison
from hftrace.analysis.compare.ranking import Ranking, call_of, loads_of, metrics_of
from hftrace.analysis.compare.verdicts import BETTER, TOO_FEW_RUNS
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.summary import caveat_lines
from hftrace.render.compare.words import WORDS, figure_of, ratio_of, runs_wanted
from hftrace.render.tables import Column, Row, table
from hftrace.render.text import DIM, GOOD, PLAIN, STRONG, Block, Line, notes, width_of, wrap

NEEDS = {
    "ready_ns": "measure with --touch or --forward, or sort by another figure",
}
"""What it takes to have a metric that no run has."""


def draw(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns caveats, the table, and the winner."""
    ranked = options.ranking
    baseline = comparison.baseline
    differences = {difference.variant.name: difference for difference in comparison.differences}
    # In a sweep each name says what was asked for: that it differs is no news.
    caveats = [
        caveat
        for caveat in comparison.caveats
        if caveat.kind != "request"
        or not all(f"{caveat.subject}=" in variant.name for variant in comparison.variants)
    ]
    first, *others = metrics_of(comparison, ranked.metric)
    rows = []
    for variant in ranked.variants:
        difference = differences.get(variant.name)
        judgement = difference.judgements[first.key] if difference is not None else None
        known = variant.values[first.key] and baseline.values[first.key]
        rows.append(
            Row(
                [
                    variant.name,
                    figure_of(variant, first) if variant.values[first.key] else "-",
                    ratio_of(judgement, False) if judgement is not None and known else "",
                    ("baseline" if judgement is None else WORDS[judgement.verdict]) if known else "",
                    *(figure_of(variant, metric) for metric in others),
                ],
                STRONG if variant is ranked.best else PLAIN,
            )
        )
    columns = [
        # Which variant it is matters more than what else is known of it.
        Column("variant", least=max(width_of(row.cells[0]) for row in rows)),
        Column(first.label, right=True, most=18),
        Column("ratio", right=True, most=8),
        Column("verdict", most=14),
        *(Column(metric.label, right=True, most=18, rank=1 + at) for at, metric in enumerate(others)),
    ]
    runs = units.count(len(baseline.runs), "run")
    note = f"by {first.label}, {runs} each, ratios to {baseline.name}"
    return [
        Block(lambda width: caveat_lines(caveats, width)),
        table("Ranking", note, columns, rows),
        Block(lambda width: _winner(ranked, options.model, width), cropped=False),
    ]


def title_of_best(ranked: Ranking) -> str:
    """Returns what the first of a ranking is called: the best where that is certain, else what is seen."""
    name = ranked.best.name if ranked.best is not None else units.UNKNOWN
    label = ranked.metric.label
    return f"best by {label}: {name}" if is_best(ranked) else f"lowest {label}: {name}"


def winner_words(ranked: Ranking) -> str:
    """Returns what is known of the first of a ranking that has a figure: that it is the best, or not yet."""
    judgement = ranked.against_second
    words = title_of_best(ranked)
    if judgement is None:
        return f"{words}, the only one with a figure"
    if judgement.verdict == BETTER:
        return words
    if judgement.verdict != TOO_FEW_RUNS:
        words += f"; no difference to {ranked.variants[1].name} that these runs can show"
    if wanted := runs_wanted(judgement, ranked.metric.label):
        words += f"; {wanted}"
    return words


def is_best(ranked: Ranking) -> bool:
    """Says whether the first of a ranking is better than the next for certain."""
    return ranked.against_second is not None and ranked.against_second.verdict == BETTER


def _winner(ranked: Ranking, model: str | None, width: int) -> Iterable[Line]:
    best, label = ranked.best, ranked.metric.label
    if best is None:
        how = NEEDS.get(ranked.metric.key, "sort by another figure")
        for text in wrap(f"no run has a figure for {label}, so none is the best: {how}", width):
            yield [(text, DIM)]
        return
    for text in wrap(winner_words(ranked), width):
        yield [(text, GOOD if is_best(ranked) else PLAIN)]
    # A call that is cut cannot be pasted.
    if call := call_of(best, model):
        yield [(call, STRONG)]
    elif loads_of(best) > 1:
        yield from notes([f"of {loads_of(best)} loads together: no one call makes it"], width)
