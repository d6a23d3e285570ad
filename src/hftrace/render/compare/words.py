"""Figures, ratios and verdicts of a comparison as people read them."""

from __future__ import annotations

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison, Difference
from hftrace.analysis.compare.variants import METRICS, Metric, Variant
from hftrace.analysis.compare.verdicts import BETTER, NO_DIFFERENCE, TOO_FEW_RUNS, WORSE, Judgement
from hftrace.analysis.ledger.tensors import TO
from hftrace.render.text import BAD, DIM, GOOD, TIMES, WARN
from hftrace.schema.model import File

WORDS = {
    BETTER: "better",
    WORSE: "worse",
    NO_DIFFERENCE: "no difference",
    TOO_FEW_RUNS: "too few runs",
}
SHORT_WORDS = {**WORDS, NO_DIFFERENCE: "same", TOO_FEW_RUNS: "few"}
"""Verdicts where a column has no room; a line below the table says what they mean."""
STYLES = {BETTER: GOOD, WORSE: BAD, NO_DIFFERENCE: DIM, TOO_FEW_RUNS: WARN}


def known_metrics(comparison: Comparison) -> list[Metric]:
    """Returns the metrics that any group has."""
    return [
        metric for metric in METRICS if any(variant.values[metric.key] for variant in comparison.variants)
    ]


def both_known(difference: Difference, metric: Metric) -> bool:
    """Says whether both groups have a metric: a verdict on one that is missing would mislead."""
    return bool(difference.baseline.values[metric.key] and difference.variant.values[metric.key])


def amount(metric: Metric, value: float | None) -> str:
    """Returns a value of a metric as people read it."""
    return units.figure(value, metric.unit)


def figure_of(variant: Variant, metric: Metric) -> str:
    """Returns median and spread: half of what lies between the smallest and the largest, as a share."""
    values = variant.values[metric.key]
    median = variant.median(metric.key)
    text = amount(metric, median)
    if median and len(values) > 1:
        text += f" ±{round((max(values) - min(values)) / 2 / abs(median) * 100)} %"
    return text


def ratio_of(judgement: Judgement, with_interval: bool) -> str:
    """Returns the ratio to the baseline and its 95 % interval, as far as they are known."""
    if judgement.ratio is None:
        return ""
    text = TIMES + units.ratio(judgement.ratio)
    if with_interval and judgement.interval is not None:
        text += f" ({units.ratio(judgement.interval.low)}{TO}{units.ratio(judgement.interval.high)})"
    return text


def more_runs(difference: Difference) -> str:
    """Returns how many runs a verdict on the time would take; empty where there is one."""
    return runs_wanted(difference.judgements["returned_ns"], "returned")


def runs_wanted(judgement: Judgement, label: str) -> str:
    """Returns how many runs a verdict on a metric would take; empty where there is one.

    This is the one place that says it.
    """
    if judgement.more_runs is None or judgement.ratio is None:
        return ""
    more = units.count(judgement.more_runs, "more run")
    if judgement.verdict == TOO_FEW_RUNS:
        return f"{more} of each for a verdict on {label}"
    return f"about {more} of each would tell whether {label} differs"


USED = 0.9
"""Of a file's bytes: a header, and what lies between tensors, is the rest of one that is used whole."""


def file_state(file: File | None) -> str:
    """Returns how a file was found, how large it is, and how much of it was used where that was less."""
    if file is None:
        return "not asked for"
    if file.result in ("missing", "error"):
        return file.result
    size, read = file.size_bytes, file.read_bytes
    parts = [file.result]
    if size is not None or read:
        parts.append(units.byte_count(size if size is not None else read or 0))
    if size is not None and read and read < USED * size:
        parts.append(f"({units.byte_count(read)} used)")
    return " ".join(parts)
