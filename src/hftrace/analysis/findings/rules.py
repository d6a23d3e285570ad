"""What a rule is, and the words that rules share.

A rule is a function marked with :func:`rule`, in one of the modules ``rules_about_...``.
It gets everything derived from a trace and yields findings; on a healthy load it yields none.
Numbers such as R02 are those of the project's catalogue of cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from hftrace.analysis.derived import Derived
from hftrace.analysis.ledger.tensors import Total, cells


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


Rule: TypeAlias = Callable[[Derived], Iterator[Finding]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Registers a rule."""
    RULES.append(function)
    return function


def seconds(time_ns: int) -> str:
    """Returns a time: ``1.25 s``, ``80 ms``."""
    return f"{time_ns / 1e9:.2f} s" if time_ns >= 1e9 else f"{time_ns / 1e6:.0f} ms"


def plural(number: int, noun: str, many: str | None = None) -> str:
    """Returns a number with its noun: ``1 call``, ``2,000 calls``."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def asked_keywords(derived: Derived) -> Mapping[str, Any]:
    """Returns the keywords of the request."""
    keywords = derived.trace.request.get("keywords")
    return keywords if isinstance(keywords, dict) else {}


def total_of(derived: Derived, **fields: str | None) -> Total:
    """Returns the sum of all tensors whose sort has the values given."""
    total = Total()
    for sort, part in derived.sums.items():
        if all(getattr(sort, name) == value for name, value in fields.items()):
            total.add(part)
    return total


def worst_names(derived: Derived, kind: str, provenance: str, limit: int = 3) -> str:
    """Names the parts of the model with most bytes: ``lm_head, score``."""
    sizes: Counter[str] = Counter()
    columns = [derived.trace.tensors.column(name) for name in ("name", "keys", "bytes", "stored_bytes")]
    for batch in derived.batches:
        if (batch.sort.kind, batch.sort.provenance) == (kind, provenance):
            for name, keys, size, stored in zip(
                *(cells(column, batch.rows) for column in columns), strict=True
            ):
                full = name or (keys[0] if keys else "(no name)")
                sizes[full.rpartition(".")[0] or full] += size or stored or 1
    worst = [name for name, _ in sizes.most_common(limit)]
    rest = len(sizes) - len(worst)
    return ", ".join(worst) + (f" and {plural(rest, 'more module')}" if rest > 0 else "")


def is_number(value: Any) -> bool:
    """Returns whether a value from a file is a number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
