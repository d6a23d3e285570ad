"""How the tensors of a model compared with their files, where ``--verify`` held them against each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hftrace.analysis.once import once
from hftrace.schema.trace import Trace

WRITTEN = frozenset({"initialized", "uninitialized", "computed"})
"""Provenances that claim nothing of the files, whatever keys there are."""


@dataclass(frozen=True)
class Verification:
    """The result for all tensors that are said to have a source in the files."""

    same: int
    different: list[int]
    """Rows of the ledger whose tensors did not hold what they are said to hold."""
    unverified: dict[str, int]
    """Tensors that were not compared, by the reason, most first."""
    tolerated: int
    """Of the same: quantised ones, which were compared with a tolerance."""
    largest_error: float | None
    """Their greatest error, as a share of the tolerance."""

    @property
    def count(self) -> int:
        """All of them."""
        return self.same + len(self.different) + sum(self.unverified.values())


@once
def verification(trace: Trace) -> Verification | None:
    """Returns the result of the verification; None where there was none."""
    columns = ("provenance", "verified", "unverified", "max_difference", "tolerance")
    if not any(map(trace.tensors.is_known, ("verified", "unverified"))):
        return None
    same = tolerated = 0
    different: list[int] = []
    reasons: Counter[str] = Counter()
    largest: float | None = None
    for row, (provenance, verified, reason, difference, tolerance) in enumerate(
        zip(*(trace.tensors.column(column) for column in columns), strict=True)
    ):
        if provenance in WRITTEN:
            continue
        if verified is None:
            if reason is not None:
                reasons[reason] += 1
            continue
        if not verified:
            different.append(row)
            continue
        same += 1
        if tolerance:
            tolerated += 1
            largest = max(largest or 0.0, (difference or 0.0) / tolerance)
    result = Verification(same, different, dict(reasons.most_common()), tolerated, largest)
    return result if result.count else None
