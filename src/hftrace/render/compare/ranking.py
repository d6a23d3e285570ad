"""All groups of a comparison as one table, best first, and the call that makes the best one."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison
from hftrace.analysis.compare.ranking import Ranking, call_of, metrics_of
from hftrace.analysis.compare.verdicts import BETTER, TOO_FEW_RUNS
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.summary import caveat_lines
from hftrace.render.compare.words import WORDS, figure_of, ratio_of
from hftrace.render.tables import Column, Row, table
from hftrace.render.text import DIM, GOOD, PLAIN, STRONG, Block, Line, width_of, wrap


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


def _winner(ranked: Ranking, model: str | None, width: int) -> Iterable[Line]:
    best = ranked.best
    if best is None:
        yield [("no load succeeded: there is no winner", DIM)]
        return
    judgement = ranked.against_second
    if judgement is None or judgement.verdict == BETTER:
        words, style = f"best: {best.name}", GOOD
    elif judgement.verdict == TOO_FEW_RUNS:
        words, style = f"least: {best.name}, on too few runs for a verdict", PLAIN
    else:
        second = ranked.variants[1].name
        words, style = f"least: {best.name}; no difference to {second} that these runs can show", PLAIN
    for text in wrap(words, width):
        yield [(text, style)]
    # A call that is cut cannot be pasted.
    yield [(call_of(best, model), STRONG)]
