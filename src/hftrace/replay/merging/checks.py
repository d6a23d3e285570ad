"""What cannot become one trace is refused, with the file that is in the way."""

from __future__ import annotations

from hftrace.errors import HftraceError
from hftrace.replay.merging.parts import Part
from hftrace.schema import document

USAGE = 2


def check(parts: list[Part]) -> None:
    """Refuses traces that are not of different ranks of one job.

    Raises:
        HftraceError: One of them does not belong to the others.
    """
    first = parts[0]
    seen: dict[int, Part] = {}
    for part in parts:
        version = str(part.trace.header.get("version") or document.VERSION)
        if _minor(version) > _minor(document.VERSION):
            raise HftraceError(
                f"{part.name} was written by a newer hftrace (format {version}, and this one knows "
                f"{document.VERSION}): merge with that one",
                USAGE,
            )
        if part.world_size < 2:
            raise HftraceError(
                f"{part.name} is of a process of its own, and not of a rank of a job: only traces of ranks "
                "are merged",
                USAGE,
            )
        if part.world_size != first.world_size:
            raise HftraceError(
                f"{part.name} is of a job of {part.world_size} ranks, and {first.name} of one of "
                f"{first.world_size}: name the traces of one job",
                USAGE,
            )
        _check_job(part, first)
        for rank in part.ranks:
            if rank in seen:
                raise HftraceError(
                    f"{seen[rank].name} and {part.name} are both of rank {rank}: name each rank once", USAGE
                )
            seen[rank] = part


def _check_job(part: Part, first: Part) -> None:
    own, other = part.job(), first.job()
    for name, what in (("name", "name"), ("address", "address"), ("port", "port"), ("restart", "restart")):
        if own.get(name) is not None and other.get(name) is not None and own[name] != other[name]:
            raise HftraceError(
                f"{part.name} is of another job than {first.name}, by its {what} ({own[name]} and "
                f"{other[name]}): name the traces of one job",
                USAGE,
            )


def _minor(version: str) -> int:
    text = version.partition(".")[2].partition(".")[0]
    return int(text) if text.isascii() and text.isdigit() else 0
