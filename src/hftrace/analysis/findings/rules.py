"""What a rule is, and the words that rules share.

A rule is a function marked with :func:`rule`, in one of the modules ``rules_about_...``.
It gets everything trace from a trace and yields findings; on a healthy load it yields none.
Numbers such as R02 are those of the project's catalogue of cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from hftrace import units
from hftrace.analysis.ledger.tensors import Total, cells, tensor_batches, tensor_sums
from hftrace.schema.model import Trace


@dataclass(frozen=True)
class Finding:
    """One diagnosis.

    ``cost_ns`` and ``cost_bytes`` are what the load would be spared, None
    where that is not known; ``internal`` is about hftrace itself.
    """

    rule: str
    name: str
    title: str
    evidence: str
    advice: str
    cost_ns: int | None = None
    cost_bytes: int | None = None
    internal: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the finding as plain JSON values."""
        return asdict(self)


Rule: TypeAlias = Callable[[Trace], Iterator[Finding]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Registers a rule."""
    RULES.append(function)
    return function


def asked_keywords(trace: Trace) -> Mapping[str, Any]:
    """Returns the keywords of the request."""
    keywords = trace.request.get("keywords")
    return keywords if isinstance(keywords, dict) else {}


def generation(trace: Trace) -> str:
    """Returns the letter of the loader generation; empty where it is not known."""
    return str(trace.environment.get("generation") or "")


def total_of(trace: Trace, **fields: str | None) -> Total:
    """Returns the sum of all tensors whose sort has the values given."""
    total = Total()
    for sort, part in tensor_sums(trace).items():
        if all(getattr(sort, name) == value for name, value in fields.items()):
            total.add(part)
    return total


def worst_names(trace: Trace, kind: str, provenance: str, limit: int = 3) -> str:
    """Names the parts of the model with most bytes: ``lm_head, score``."""
    sizes: Counter[str] = Counter()
    columns = [trace.tensors.column(name) for name in ("name", "keys", "bytes", "stored_bytes")]
    for batch in tensor_batches(trace):
        if (batch.sort.kind, batch.sort.provenance) == (kind, provenance):
            for name, keys, size, stored in zip(
                *(cells(column, batch.rows) for column in columns), strict=True
            ):
                full = name or (keys[0] if keys else "(no name)")
                sizes[full.rpartition(".")[0] or full] += size or stored or 1
    worst = [name for name, _ in sizes.most_common(limit)]
    rest = len(sizes) - len(worst)
    return ", ".join(worst) + (f" and {units.count(rest, 'more module')}" if rest > 0 else "")


def is_number(value: Any) -> bool:
    """Returns whether a value from a file is a number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
