"""What views of a comparison are asked to show."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hftrace.analysis.compare.ranking import Ranking


class CompareOptions(NamedTuple):
    """What a view may need beside the comparison."""

    ranking: Ranking
    """The order of the groups."""
    model: str | None = None
    """What the user calls the model, for the winner's call."""
