"""Groups of runs from the best to the worst by one metric, and the call that makes the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hftrace.analysis.compare.comparison import Comparison
from hftrace.analysis.compare.variants import METRICS, Metric, Variant
from hftrace.analysis.compare.verdicts import Judgement, judge
from hftrace.analysis.loader import loader_facts
from hftrace.analysis.time.load_names import load_groups

NAMES = {metric.label.replace(" ", "-"): metric for metric in METRICS}
"""What metrics are called on a command line."""


@dataclass(frozen=True)
class Ranking:
    """Groups of runs in order.

    Args:
        metric: What they are sorted by; lower is better.
        variants: The groups, best median first; those without a figure last.
        against_second: The best one against the next; None where there is none.
    """

    metric: Metric
    variants: list[Variant]
    against_second: Judgement | None

    @property
    def best(self) -> Variant | None:
        """The first one, if it has a figure at all."""
        first = self.variants[0]
        return first if first.values[self.metric.key] else None


def default_metric(comparison: Comparison) -> Metric:
    """Returns the time until ready where it was measured, else the time until the call returned."""
    known = any(variant.values["ready_ns"] for variant in comparison.variants)
    return NAMES["ready" if known else "returned"]


def ranking(comparison: Comparison, metric: Metric) -> Ranking:
    """Sorts the groups of a comparison by the median of a metric."""

    def place(variant: Variant) -> tuple[bool, int]:
        median = variant.median(metric.key)
        return median is None, median or 0

    order = sorted(comparison.variants, key=place)
    first, second = (variant.values[metric.key] for variant in order[:2])
    against = judge(second, first, metric.resolution) if first and second else None
    return Ranking(metric, order, against)


def call_of(variant: Variant, model: str | None = None) -> str | None:
    """Returns the ``from_pretrained`` call that a group's runs made, as Python, ready to be pasted.

    None where they made several loads, whose figures are no one call's, or a pipeline.

    Args:
        variant: The group.
        model: What the user calls the model; by default what the trace does.
    """
    trace = variant.typical
    request = trace.request
    if loads_of(variant) > 1 or request.get("what", "model") == "pipeline":
        return None
    owner = request.get("class") or "AutoModel"
    words = [repr(model if model is not None else request.get("model"))]
    dtype = loader_facts(trace).dtype_keyword or "torch_dtype"
    words += [
        f"{dtype if key in ('dtype', 'torch_dtype') else key}={value!r}"
        for key, value in (request.get("keywords") or {}).items()
    ]
    variables = ((trace.header.get("variant") or {}).get("environment") or {}).items()
    before = "".join(f"{key}={value} " for key, value in variables)
    return f"{before}{owner}.from_pretrained({', '.join(words)})"


def loads_of(variant: Variant) -> int:
    """Returns how many loads the run that stands for a group made."""
    return len(load_groups(variant.typical))


def metrics_of(comparison: Comparison, first: Metric) -> Sequence[Metric]:
    """Returns the metrics that any group has: the one to sort by, what users ask for, parts of times last."""
    known = [each for each in METRICS if any(variant.values[each.key] for variant in comparison.variants)]
    known.sort(key=lambda each: each.key in ("load_ns", "imports_ns"))
    return [first, *(each for each in known if each is not first)]


def ranking_facts(ranked: Ranking, model: str | None = None) -> dict[str, Any]:
    """Returns a ranking as plain JSON values: the metric, the names in order, and the call of the best."""
    best = ranked.best
    return {
        "metric": ranked.metric.key,
        "order": [variant.name for variant in ranked.variants],
        "best": best.name if best is not None else None,
        "call": call_of(best, model) if best is not None else None,
        "verdict": ranked.against_second.verdict if ranked.against_second is not None else None,
    }
