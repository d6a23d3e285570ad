"""The weight files of a load: which, and what they were when it found them."""

from __future__ import annotations

from dataclasses import dataclass

from hftrace.schema import lines

SEVERAL = lines.Identity(-1, -1)
"""The identity of a file that was written to while a load ran: what the load has read of it is not known."""


@dataclass
class WeightFile:
    """One of the weight files of a load."""

    span: int
    """The span that resolved it."""
    resident_before: float | None
    """Share in the page cache when it was resolved, 0 to 1; None if unknown."""
    resident_after: float | None = None
    """The same when the load returned."""
    touched_bytes: int | None = None
    """What of it the process had mapped and touched then."""
    identity: lines.Identity | None = None
    """What it was then; None where it was not there, and in journals of before."""
    absent: bool = False
    """Whether it was not there."""


def add_files(files: dict[str, WeightFile], line: lines.Checkpoint) -> None:
    """Adds the files of a line to those of its load, by path."""
    known = line.identities
    unknown: list[lines.Identity | None] = [None] * len(line.paths)
    for path, share, identity in zip(line.paths, line.shares, known or unknown, strict=False):
        absent = known is not None and identity is None
        file = files.setdefault(path, WeightFile(line.span, share, identity=identity, absent=absent))
        if file.absent:
            file.identity, file.absent = identity, absent
        elif file.identity != identity and not absent:
            file.identity = SEVERAL
