"""Which of the processes of a job this one is: torchrun and accelerate say so in the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple


class Rank(NamedTuple):
    """The place of a process among those of its job."""

    number: int
    of: int
    """How many there are; 1 for a process of its own."""

    def path(self, asked: Path) -> Path:
        """Returns where this rank writes what all were asked to write to one place.

        The first keeps the name, so that it is found where it was asked for;
        the others add theirs: ``trace.json``, ``trace.rank1.json``.
        """
        if self.number == 0:
            return asked
        name = asked.name
        suffix = next((end for end in (".json.gz", ".json") if name.endswith(end)), "")
        return asked.with_name(f"{name[: len(name) - len(suffix)]}.rank{self.number}{suffix}")


ALONE = Rank(0, 1)


def own_rank() -> Rank:
    """Returns what torch.distributed says once it has been set up, and what the launcher said before."""
    distributed = sys.modules.get("torch.distributed")
    try:
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            return Rank(int(distributed.get_rank()), int(distributed.get_world_size()))
    except Exception:  # a group that was destroyed meanwhile, a build without it
        pass
    number, of = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if number.isdigit() and of.isdigit() and int(number) < int(of):
        return Rank(int(number), int(of))
    return ALONE
