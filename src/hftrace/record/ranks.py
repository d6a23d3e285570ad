"""Which of the processes of a job this one is: torchrun and accelerate say so in the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from hftrace.system.machine import machine_facts


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


def rank_facts() -> dict[str, Any] | None:
    """Returns the rank of this process, its job and its machine, as a trace says them; None for one alone."""
    rank = own_rank()
    if rank.of < 2:
        return None
    return {"rank": rank.number, "ranks": rank.of, "job": job_facts(), "machine": machine_facts()}


def job_facts() -> dict[str, Any]:
    """Returns what the launcher says of the job that this process is a rank of, as far as it says anything.

    ``none`` is what torchrun calls a job that nobody has named.
    """
    names = {"name": "TORCHELASTIC_RUN_ID", "address": "MASTER_ADDR", "port": "MASTER_PORT"}
    facts: dict[str, Any] = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    numbers = {
        "node": "GROUP_RANK",
        "local_rank": "LOCAL_RANK",
        "local_ranks": "LOCAL_WORLD_SIZE",
        "restart": "TORCHELASTIC_RESTART_COUNT",
    }
    for key, name in numbers.items():
        text = os.environ.get(name, "")
        if text.isascii() and text.isdigit():
            facts[key] = int(text[:9])
    if facts.get("name") == "none":
        del facts["name"]
    return facts
