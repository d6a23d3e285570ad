"""Statistics of a tensor's values: what is counted, put together of pieces, and why there may be none."""

from __future__ import annotations

import math
from typing import NamedTuple

UNMEASURED = {
    "no_file": "no file has it; hftrace load --stats measures such tensors in the loading process",
    "gone": "its file is not there any more, or not on this machine",
    "changed": "its file is not what it was when it was loaded",
    "unidentified": "the trace does not say enough of its file to know that it is still the same",
    "cut": "its key holds more than this tensor, or its keys hold more than their values",
    "codes": "its file holds codes, which mean nothing without their scales",
    "format": "its file is of a format or a dtype whose values are not read",
    "meta": "it has no data",
}
"""Why the values of a tensor were not read, by the word that ``--json`` has."""


class Statistics(NamedTuple):
    """Of the values of one tensor."""

    mean: float | None
    """Of the values that are finite; None where there are none."""
    std: float | None
    """Their standard deviation with Bessel's correction, as ``torch.std``; None for fewer than two."""
    zeros: int
    nans: int
    infs: int


class Measured(NamedTuple):
    """What is known of the values of one tensor."""

    statistics: Statistics | None
    source: str | None
    """``file`` or ``model``: where the values were read; None where they were not."""
    why: str | None
    """Why not: a word of :data:`UNMEASURED`."""


class Moments:
    """Puts the statistics of a tensor together, of one piece of it after the other."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._zeros = self._nans = self._infs = 0

    def add(self, count: int, mean: float, squares: float, zeros: int, nans: int, infs: int) -> None:
        """Adds a piece.

        Args:
            count: How many of its values are finite.
            mean: Their mean.
            squares: The sum of the squares of their differences from it.
            zeros: How many are zero.
            nans: How many are no number.
            infs: How many are infinite.
        """
        self._zeros += zeros
        self._nans += nans
        self._infs += infs
        if not count:
            return
        total = self._count + count
        apart = mean - self._mean
        self._mean += apart * count / total
        self._squares += squares + apart * apart * self._count * count / total
        self._count = total

    def statistics(self) -> Statistics:
        """Returns what all pieces have in common."""
        mean = self._mean if self._count and math.isfinite(self._mean) else None
        variance = self._squares / (self._count - 1) if self._count > 1 else math.nan
        std = math.sqrt(variance) if math.isfinite(variance) else None
        return Statistics(mean, std, self._zeros, self._nans, self._infs)
