"""What a search for the best call has found: the call, its proof, and what each setting contributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hftrace.analysis.compare.comparison import Comparison
from hftrace.analysis.compare.comparison import facts as comparison_facts
from hftrace.analysis.compare.equality import Equality
from hftrace.analysis.compare.variants import Metric
from hftrace.analysis.compare.verdicts import BETTER, Judgement

PLAIN = "plain"
"""The variant that is the call as it was given."""


@dataclass
class Tried:
    """A setting, and what came of it.

    Args:
        name: What it is called.
        keywords: Of ``from_pretrained``.
        environment: Variables of its process.
        without: Keywords that it takes away.
        collector: What Python's collector of cycles does.
        changes: What it may change of the model.
        origin: The rule of the finding that it comes from; None for one of the table.
        alone: It alone against the plain call.
        left_out: The best combination without it against the whole: worse where it contributes.
        equal: Whether its model is the plain call's; None where that was not looked into.
        peak_bytes: The greatest peak of anonymous memory of its runs.
        reason: Why it went no further; None where it is in the answer.
    """

    name: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    collector: str | None = None
    changes: frozenset[str] = frozenset()
    origin: str | None = None
    alone: Judgement | None = None
    left_out: Judgement | None = None
    equal: Equality | None = None
    peak_bytes: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Call:
    """A call of ``from_pretrained``, and all that belongs to it.

    Args:
        model: As the user calls it.
        owner: The class, or ``module:Class``.
        keywords: As JSON values, without secrets.
        environment: Variables that have to be set before transformers is imported.
        collector: What Python's collector of cycles does meanwhile.
    """

    model: str
    owner: str
    keywords: Mapping[str, Any]
    environment: Mapping[str, str]
    collector: str | None = None

    def python(self) -> str:
        """Returns a program that makes it."""
        lines = ["import os", ""] if self.environment else []
        for name, value in self.environment.items():
            lines.append(f"os.environ[{name!r}] = {value!r}  # before transformers is imported")
        lines += [""] if self.environment else []
        lines += ["import gc", ""] if self.collector else []
        values = [f"{key}={_value(key, value)}" for key, value in self.keywords.items()]
        if any(text.partition("=")[2].startswith("torch.") for text in values):
            lines.append("import torch")
        module, _, name = self.owner.rpartition(":")
        lines += [f"from {module or 'transformers'} import {name}", ""]
        before = {"off": ["gc.disable()"], "freeze": ["gc.collect()", "gc.freeze()"]}
        after = {"off": ["gc.enable()"], "freeze": ["gc.unfreeze()"]}
        lines += before.get(self.collector or "", [])
        lines.append(f"model = {name}.from_pretrained({', '.join([repr(self.model), *values])})")
        lines += after.get(self.collector or "", [])
        return "\n".join(lines) + "\n"


def _value(key: str, value: Any) -> str:
    if key in ("dtype", "torch_dtype") and isinstance(value, str) and value != "auto":
        # Names of dtypes are not taken by every version.
        return f"torch.{value.removeprefix('torch.')}"
    if key == "max_memory" and isinstance(value, Mapping):
        # JSON has no integer keys, and accelerate numbers accelerators by integers.
        return repr({int(name) if name.isdigit() else name: size for name, size in value.items()})
    return repr(value)


@dataclass(frozen=True)
class Tuning:
    """What a search has found.

    Args:
        metric: What is to be low.
        objective: ``time`` or ``memory``.
        plain: The call as it was given.
        best: The best call; the plain one where nothing is better; None where none keeps to the limit.
        settings: Names of the settings in the best call.
        tried: All settings, in the order in which they were tried.
        proof: The plain call against the best one, measured in turn; None where they are the same.
        equal: What proves that both make the same model.
        max_peak_bytes: No call may take more anonymous memory.
        plain_peak_bytes: What the plain call takes.
        best_peak_bytes: What the best one does.
        budget_seconds: How long the search was allowed to take.
        spent_seconds: How long it took.
        notes: What the budget left no room for, in sentences.
        directory: Where the traces are.
        proof_directory: Where those of the proof are.
    """

    metric: Metric
    objective: str
    plain: Call
    best: Call | None
    settings: Sequence[str]
    tried: Sequence[Tried]
    proof: Comparison | None
    equal: Equality | None
    max_peak_bytes: int | None
    plain_peak_bytes: int | None
    best_peak_bytes: int | None
    budget_seconds: float
    spent_seconds: float
    notes: Sequence[str]
    directory: str
    proof_directory: str | None

    @property
    def verdict(self) -> Judgement | None:
        """The best call against the plain one; None where they are the same."""
        return None if self.proof is None else self.proof.differences[0].judgements[self.metric.key]

    @property
    def is_better(self) -> bool:
        """Whether another call than the plain one is better for certain."""
        return self.verdict is not None and self.verdict.verdict == BETTER


def tuning_facts(found: Tuning) -> dict[str, Any]:
    """Returns a search as plain JSON values: seconds by the clock, ns and bytes elsewhere."""
    verdict = found.verdict
    return {
        "objective": found.objective,
        "metric": found.metric.key,
        "better": found.is_better,
        "verdict": verdict.verdict if verdict is not None else None,
        "ratio": verdict.ratio if verdict is not None else None,
        "settings": list(found.settings),
        "call": _call_facts(found.best),
        "plain": _call_facts(found.plain),
        "equal": _equality_facts(found.equal),
        "tried": [_tried_facts(tried) for tried in found.tried],
        "max_peak_bytes": found.max_peak_bytes,
        "plain_peak_bytes": found.plain_peak_bytes,
        "best_peak_bytes": found.best_peak_bytes,
        "budget_seconds": found.budget_seconds,
        "spent_seconds": round(found.spent_seconds, 1),
        "notes": list(found.notes),
        "comparison": comparison_facts(found.proof) if found.proof is not None else None,
        "directory": found.directory,
        "proof_directory": found.proof_directory,
    }


def _call_facts(call: Call | None) -> dict[str, Any] | None:
    if call is None:
        return None
    return {
        "python": call.python(),
        "class": call.owner,
        "keywords": dict(call.keywords),
        "environment": dict(call.environment),
        "collector": call.collector,
    }


def _equality_facts(equal: Equality | None) -> dict[str, Any] | None:
    return None if equal is None else {"proven": equal.proven, "how": equal.how}


def _judgement_facts(judgement: Judgement | None) -> dict[str, Any] | None:
    if judgement is None:
        return None
    return {"ratio": judgement.ratio, "p_value": judgement.p_value, "verdict": judgement.verdict}


def _tried_facts(tried: Tried) -> dict[str, Any]:
    return {
        "name": tried.name,
        "keywords": dict(tried.keywords),
        "without": sorted(tried.without),
        "environment": dict(tried.environment),
        "collector": tried.collector,
        "changes": sorted(tried.changes),
        "finding": tried.origin,
        "alone": _judgement_facts(tried.alone),
        "without_it": _judgement_facts(tried.left_out),
        "equal": _equality_facts(tried.equal),
        "peak_bytes": tried.peak_bytes,
        "reason": tried.reason,
    }
