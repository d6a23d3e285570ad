"""Which of many versions in order brought a difference: the search, and on which side a step lies.

The first version is good and the last one bad, which a comparison has shown. Each step takes the version
in the middle of what is left, measures it in turn with the last good and the first bad one, and asks
``compare``'s verdicts (:mod:`hftrace.analysis.compare.verdicts`) which of the two it is like. A step
that cannot be tried is left out, as ``git bisect skip`` does, and so is one that is like neither for certain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hftrace.analysis.compare.comparison import Comparison
from hftrace.analysis.compare.comparison import facts as comparison_facts
from hftrace.analysis.compare.variants import Metric, Variant
from hftrace.analysis.compare.verdicts import BETTER, WORSE, Judgement, judge

GOOD, BAD, SKIPPED = "good", "bad", "skipped"
STATUS = "status"
"""The metric that is no figure: whether the load ends well."""


@dataclass(frozen=True)
class Placement:
    """On which side a version lies.

    Args:
        side: ``good`` or ``bad``; None where the runs do not tell.
        against_good: Its runs against those of the good end.
        against_bad: Its runs against those of the bad end.
        between: It differs from both ends for certain: a part of the difference was brought before, or
            by it, and another one after it. The nearer end names its side.
    """

    side: str | None
    against_good: Judgement
    against_bad: Judgement
    between: bool = False


def place(step: Variant, good: Variant, bad: Variant, metric: Metric) -> Placement:
    """Says which of two ends a version is like; lower is better.

    Args:
        step: The version's runs.
        good: Runs of the good end, measured in turn with them.
        bad: Runs of the bad end, measured in turn with them.
        metric: What they are told apart by.
    """
    low, middle, high = (variant.values[metric.key] for variant in (good, step, bad))
    over = judge(low, middle, metric.resolution)
    under = judge(high, middle, metric.resolution)
    if over.verdict == BETTER:
        return Placement(GOOD, over, under)
    if under.verdict == WORSE:
        return Placement(BAD, over, under)
    worse, better = over.verdict == WORSE, under.verdict == BETTER
    if worse and better:
        ends = good.median(metric.key) or 0, bad.median(metric.key) or 0
        is_near_bad = 2 * (step.median(metric.key) or 0) >= sum(ends)
        return Placement(BAD if is_near_bad else GOOD, over, under, between=True)
    return Placement(BAD if worse else GOOD if better else None, over, under)


class Search:
    """A bisection of names in order, of which the first is good and the last is bad.

    Args:
        labels: The names, two at least.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        self._good, self._bad = 0, len(self.labels) - 1
        self._skipped: set[int] = set()

    @property
    def last_good(self) -> str:
        """The last one that is known to be good."""
        return self.labels[self._good]

    @property
    def first_bad(self) -> str:
        """The first one that is known to be bad."""
        return self.labels[self._bad]

    @property
    def left(self) -> int:
        """How many could still be tried."""
        return self._bad - self._good - 1 - len(self._open_skips())

    @property
    def suspects(self) -> list[str]:
        """All that may have brought it: one where nothing between the ends was left out."""
        return self.labels[self._good + 1 : self._bad + 1]

    def _open_skips(self) -> list[int]:
        return [at for at in self._skipped if self._good < at < self._bad]

    def next(self) -> str | None:
        """Returns the one to try now: nearest to the middle, of those not left out; None at the end."""
        middle = (self._good + self._bad) / 2
        open_ones = [at for at in range(self._good + 1, self._bad) if at not in self._skipped]
        return self.labels[min(open_ones, key=lambda at: abs(at - middle))] if open_ones else None

    def mark(self, label: str, side: str | None) -> None:
        """Takes note of what was found out about one; it is left out where its side is not known."""
        at = self.labels.index(label)
        if side == GOOD:
            self._good = max(self._good, at)
        elif side == BAD:
            self._bad = min(self._bad, at)
        else:
            self._skipped.add(at)


@dataclass(frozen=True)
class Step:
    """What was tried, and what came of it.

    Args:
        label: The version or the commit.
        side: ``good``, ``bad`` or ``skipped``.
        reason: Why it was left out, or how its load ended.
        transformers: The version that its load imported; None where there is none.
        values: Runs of the metric by ``good``, ``step`` and ``bad``; empty for the status.
        placement: The verdicts; None for the ends, for the status, and where it could not be measured.
        subject: What a commit's message says first.
    """

    label: str
    side: str
    reason: str | None = None
    transformers: str | None = None
    values: Mapping[str, Sequence[int]] = field(default_factory=dict)
    placement: Placement | None = None
    subject: str | None = None


@dataclass(frozen=True)
class Bisection:
    """What a bisection has found.

    Args:
        metric: What versions were told apart by; None for the status of their loads.
        good: The good end.
        bad: The bad end.
        candidates: All names in order.
        steps: What was tried, in order; the ends first.
        last_good: The last version that is good; None where the ends did not differ.
        suspects: Those of which one has brought it; a single one is the answer.
        directory: Where the traces are.
        ends: The good end against the bad one; None for the status.
        proof: The last good version against the first bad one, measured in turn; None for the status, and
            where the ends did not differ (then :attr:`ends` says it).
        proof_directory: Where the proof's traces are.
    """

    metric: Metric | None
    good: str
    bad: str
    candidates: Sequence[str]
    steps: Sequence[Step]
    last_good: str | None
    suspects: Sequence[str]
    directory: str
    ends: Comparison | None = None
    proof: Comparison | None = None
    proof_directory: str | None = None

    @property
    def first_bad(self) -> str | None:
        """The version that brought it; None where there is none, or several may have."""
        return self.suspects[0] if len(self.suspects) == 1 else None

    @property
    def verdict(self) -> Judgement | None:
        """The proof's judgement of the metric; None where there is none."""
        comparison = self.proof or self.ends
        if comparison is None or self.metric is None:
            return None
        return comparison.differences[0].judgements[self.metric.key]

    @property
    def is_proven(self) -> bool:
        """Whether the first bad version is worse than the last good one, measured side by side."""
        verdict = self.verdict
        if verdict is None:
            return bool(self.suspects)
        return bool(self.suspects) and verdict.verdict == WORSE


def bisection_facts(found: Bisection) -> dict[str, Any]:
    """Returns a bisection as plain JSON values.

    ``phases`` is what the time of the first bad version has more than the last good one's, in ns by phase.
    """
    comparison = found.proof or found.ends
    compared = comparison_facts(comparison) if comparison is not None else None
    names = [variant.name for variant in comparison.variants] if comparison is not None else []
    changed = compared["variants"][names[1]] if compared is not None else {}
    verdict = found.verdict
    return {
        "metric": found.metric.key if found.metric is not None else STATUS,
        "good": found.good,
        "bad": found.bad,
        "candidates": list(found.candidates),
        "first_bad": found.first_bad,
        "last_good": found.last_good,
        "suspects": list(found.suspects),
        "proven": found.is_proven,
        "verdict": verdict.verdict if verdict is not None else None,
        "ratio": verdict.ratio if verdict is not None else None,
        "phases": changed.get("attribution") or {},
        "phase_verdicts": changed.get("phase_verdicts") or {},
        "steps": [_step_facts(step) for step in found.steps],
        "comparison": compared,
        "directory": found.directory,
        "proof_directory": found.proof_directory,
    }


def _step_facts(step: Step) -> dict[str, Any]:
    placed = step.placement
    return {
        "label": step.label,
        "subject": step.subject,
        "side": step.side,
        "reason": step.reason,
        "transformers": step.transformers,
        "values": {side: list(values) for side, values in step.values.items()},
        "between": placed.between if placed is not None else None,
        "against_good": _judgement_facts(placed.against_good if placed is not None else None),
        "against_bad": _judgement_facts(placed.against_bad if placed is not None else None),
    }


def _judgement_facts(judgement: Judgement | None) -> dict[str, Any] | None:
    if judgement is None:
        return None
    return {"ratio": judgement.ratio, "p_value": judgement.p_value, "verdict": judgement.verdict}
