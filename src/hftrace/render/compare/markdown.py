"""A comparison as Markdown, for a comment on a pull request: caveats, figures with verdicts, why.

Text from traces may hold anything. It stands in code spans, where GitHub
renders neither markup nor mentions (GitHub Flavored Markdown, section 6.3).
"""

from __future__ import annotations

from collections.abc import Iterator

from hftrace.analysis.compare.comparison import Comparison
from hftrace.analysis.compare.verdicts import BETTER, WORSE
from hftrace.render.compare.reasons import reasons
from hftrace.render.compare.words import (
    WORDS,
    both_known,
    figure_of,
    known_metrics,
    more_runs,
    ratio_of,
)
from hftrace.render.text import clean

MAX_LENGTH = 400
"""Characters of one code span; a comment has to stay readable."""


def code(text: object) -> str:
    """Returns foreign text as a code span that no table, and nothing else around it, can take apart."""
    plain = clean(text).replace("`", "'").replace("|", "\\|").strip()
    if len(plain) > MAX_LENGTH:
        plain = plain[: MAX_LENGTH - 1] + "…"
    return f"`{plain}`" if plain else ""


def markdown(comparison: Comparison) -> str:
    """Returns the comparison as one document of GitHub Flavored Markdown."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    yield f"### hftrace compare: {len(comparison.variants)} groups, baseline {code(comparison.baseline.name)}"
    yield ""
    if comparison.caveats:
        yield "**Caveats**"
        yield ""
        yield from (f"- {code(caveat.text)}" for caveat in comparison.caveats)
    else:
        yield "No caveats: same versions, machine, request and cache state."
    yield ""
    names = [code(variant.name) for variant in comparison.variants]
    yield f"| | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    runs = [str(len(variant.successful)) for variant in comparison.variants]
    yield f"| runs | {' | '.join(runs)} |"
    for metric in known_metrics(comparison):
        cells = [figure_of(comparison.baseline, metric)]
        for difference in comparison.differences:
            judgement = difference.judgements[metric.key]
            cell = figure_of(difference.variant, metric)
            if both_known(difference, metric):
                verdict = WORDS[judgement.verdict]
                strong = f"**{verdict}**" if judgement.verdict in (BETTER, WORSE) else verdict
                cell += f"<br>{ratio_of(judgement, True)} {strong}"
            cells.append(cell)
        yield f"| {metric.label} | {' | '.join(cells)} |"
    for difference in comparison.differences:
        if not difference.variant.successful:
            continue
        yield ""
        yield f"**Why: {code(difference.variant.name)} against {code(difference.baseline.name)}**"
        yield ""
        for label, text in reasons(difference):
            yield f"- {label or 'did'}: {code(text)}"
        if advice := more_runs(difference):
            yield f"- {advice}"
