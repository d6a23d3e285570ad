"""Caveats, figures with verdicts, and where the differences come from."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hftrace import units
from hftrace.analysis.compare.caveats import Caveat
from hftrace.analysis.compare.comparison import Comparison, Difference
from hftrace.analysis.compare.variants import METRICS, Variant
from hftrace.analysis.compare.verdicts import NO_DIFFERENCE, TOO_FEW_RUNS
from hftrace.render.compare.columns import LABEL, tables
from hftrace.render.compare.options import CompareOptions
from hftrace.render.compare.reasons import reasons
from hftrace.render.compare.words import (
    SHORT_WORDS,
    STYLES,
    WORDS,
    both_known,
    figure_of,
    known_metrics,
    more_runs,
    ratio_of,
)
from hftrace.render.text import (
    DIM,
    GOOD,
    PLAIN,
    STRONG,
    TIMES,
    WARN,
    Block,
    Line,
    fit,
    heading,
    notes,
    shorten,
    width_of,
    wrap,
)


def draw(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns caveats, figures with verdicts, and where the differences come from."""

    def lines(width: int) -> Iterable[Line]:
        yield from _title(comparison, width)
        yield from caveat_lines(comparison.caveats, width)
        yield []
        yield from _figures(comparison, width)
        for difference in comparison.differences:
            if not difference.variant.successful:
                continue  # it has no figures, as the caveats say: what never came does not differ
            yield []
            yield from _why(difference, width)

    return [Block(lines)]


def brief(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns all of it: it is what people ask first."""
    return draw(comparison, options)


def _title(comparison: Comparison, width: int) -> Iterable[Line]:
    count = units.count(len(comparison.variants), "group")
    runs = units.count(len(comparison.baseline.runs), "run")
    right = f"baseline {comparison.baseline.name}, {runs}"
    left = f"Comparison of {count}"
    right = shorten(right, max(0, width - width_of(left) - 2))
    gap = max(1, width - width_of(left) - width_of(right))
    yield [(left, STRONG), (" " * gap, PLAIN), (right, PLAIN)]
    yield [("─" * width, DIM)]


def caveat_lines(caveats: Sequence[Caveat], width: int) -> Iterable[Line]:
    """Yields what makes groups hard to compare, or that nothing does."""
    if not caveats:
        yield [("No caveats: ", GOOD), (shorten("same versions, machine, request, cache", width - 12), PLAIN)]
    for caveat in caveats:
        for number, text in enumerate(wrap(caveat.text, width - 2)):
            yield [("! " if not number else "  ", WARN), (text, PLAIN)]


class _Layout(NamedTuple):
    """How figures stand beside each other."""

    base: int
    """Width of the baseline's column."""
    each: int
    """Width of a variant's column."""
    beside: int
    """How many variants there are in a table."""
    tall: bool
    """Ratio and verdict stand below the median."""
    interval: bool


def _layout(comparison: Comparison, width: int) -> _Layout:
    count = len(comparison.differences)
    base = 14
    room = width - LABEL - base
    if room >= 49 * count:
        return _Layout(base, min(60, room // count), count, False, True)
    least, interval = (27, True) if room >= 27 * count else (13, False)
    beside = max(1, min(count, room // least))
    return _Layout(base - 1, max(least, (room + 1) // beside), beside, True, interval)


def _names(comparison: Comparison, shown: Sequence[Difference], base: int, each: int) -> Line:
    line: Line = [(" " * LABEL, PLAIN), (fit(comparison.baseline.name, base - 1) + " ", STRONG)]
    line += [(fit(shorten(difference.variant.name, each - 1), each), STRONG) for difference in shown]
    return line


def _figures(comparison: Comparison, width: int) -> Iterable[Line]:
    layout = _layout(comparison, width)
    words = SHORT_WORDS if layout.tall else WORDS
    for number, shown in enumerate(tables(comparison, layout.beside)):
        if number:
            yield []
        yield _names(comparison, shown, layout.base, layout.each)
        yield _run_counts(comparison, shown, layout)
        for metric in known_metrics(comparison):
            base = figure_of(comparison.baseline, metric)
            line: Line = [(fit(metric.label, LABEL), DIM), (fit(base, layout.base), PLAIN)]
            below: Line = [(" " * (LABEL + layout.base), PLAIN)]
            for difference in shown:
                judgement = difference.judgements[metric.key]
                median = figure_of(difference.variant, metric)
                style = STYLES[judgement.verdict]
                ratio = ratio_of(judgement, layout.interval)
                verdict = words[judgement.verdict] if both_known(difference, metric) else ""
                if layout.tall:
                    text = f"{ratio} {verdict}".strip()
                    line.append((fit(median, layout.each), PLAIN))
                    below.append((fit(text, layout.each - 1) + " ", style))
                    continue
                line.append((fit(median, 14), PLAIN))
                line.append((fit(ratio, 21), PLAIN))
                line.append((fit(verdict, layout.each - 35), style))
            yield line
            if layout.tall:
                yield below
    yield from _explanations(comparison, layout, width)


def _run_counts(comparison: Comparison, shown: Sequence[Difference], layout: _Layout) -> Line:
    line: Line = [
        (fit("runs", LABEL), DIM),
        (fit(_run_count(comparison.baseline), layout.base), DIM),
    ]
    line += [(fit(_run_count(difference.variant), layout.each), DIM) for difference in shown]
    return line


def _run_count(variant: Variant) -> str:
    good, every = len(variant.successful), len(variant.runs)
    return str(every) if good == every else f"{good} of {every}"


def _explanations(comparison: Comparison, layout: _Layout, width: int) -> Iterable[Line]:
    texts = []
    verdicts = {
        difference.judgements[metric.key].verdict
        for difference in comparison.differences
        for metric in METRICS
        if both_known(difference, metric)
    }
    texts.append("imports: before the load and inside it; load: returned without those inside")
    reached = [
        f"{variant.name} {units.share(variant.efficiency)}"
        for variant in comparison.variants
        if variant.efficiency is not None
    ]
    if reached:
        texts.append(f"weights, of what the machine of each reads: {', '.join(reached)}")
    several = any(len(variant.successful) > 1 for variant in comparison.variants)
    if several:
        intervals = "; in brackets the 95 % interval of the ratio" if layout.interval else ""
        texts.append(f"median ±half of the range; {TIMES} is the ratio to the baseline{intervals}")
    if layout.tall:
        named = [(NO_DIFFERENCE, "same: no difference was found"), (TOO_FEW_RUNS, "few: too few runs to say")]
        texts += [text for verdict, text in named if verdict in verdicts]
    advice: dict[str, list[str]] = {}
    for difference in comparison.differences:
        if text := more_runs(difference):
            advice.setdefault(text, []).append(difference.variant.name)
    texts += [f"{', '.join(names)}: {text}" for text, names in advice.items()]
    yield from notes(texts, width)


def _why(difference: Difference, width: int) -> Iterable[Line]:
    name, base = difference.variant.name, difference.baseline.name
    yield heading(shorten(f"Why: {name} against {base}", width - 4), width)
    found = reasons(difference)
    if not found:
        yield [("nothing to tell: there is no figure, or nothing differs", DIM)]
    for label, text in found:
        for number, part in enumerate(wrap(text, width - LABEL)):
            yield [(fit(label if not number else "", LABEL), DIM), (part, PLAIN)]
