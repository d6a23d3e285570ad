"""Which of the processes of a job this one is: torchrun and accelerate say so in the environment."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from hftrace.system.machine import machine_facts
from hftrace.system.processes import start_ticks

JOB_VARIABLE = "HFTRACE_JOB"
"""Tells the process that a rank starts to do its work which job that is."""


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
        return self.numbered(asked, "rank", self.number)

    def asked(self, path: Path) -> Path:
        """Returns what all were asked to write to, from where this rank writes: :meth:`path` reversed."""
        mark = f".rank{self.number}"
        head, found, tail = path.name.rpartition(mark)
        return path.with_name(head + tail) if self.number and found else path

    @staticmethod
    def numbered(asked: Path, word: str, number: int) -> Path:
        """Returns a path with a word and a number before its suffix: ``trace.rank1.json``."""
        name = asked.name
        suffix = next((end for end in (".json.gz", ".json") if name.endswith(end)), "")
        return asked.with_name(f"{name[: len(name) - len(suffix)]}.{word}{number}{suffix}")


ALONE = Rank(0, 1)
_KEY_DIGITS = 16


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


def job_key() -> str:
    """Returns what all ranks of a job on one machine have in common, and those of no other job.

    torchrun has a new folder for the errors of each of its attempts. What else starts ranks is their
    parent, which has a number and a start of its own.
    """
    errors, known = os.environ.get("TORCHELASTIC_ERROR_FILE"), os.environ.get(JOB_VARIABLE)
    if errors:
        words = [os.path.dirname(os.path.dirname(errors))]
    elif known:
        return known
    else:
        parent = os.getppid()
        words = [f"{parent} {start_ticks(parent)}"]
    words += [os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")]
    return hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:_KEY_DIGITS]


def mark_job() -> None:
    """Lets the processes that this one starts know of which job they are, where it is a rank of one."""
    if own_rank().of > 1:
        os.environ[JOB_VARIABLE] = job_key()


def local_ranks(rank: Rank) -> list[int]:
    """Returns the ranks of the job that run on this machine, as far as the launcher says which.

    Args:
        rank: This one.
    """
    facts = job_facts()
    own, count = facts.get("local_rank"), facts.get("local_ranks")
    if own is None or count is None or not own < count <= rank.of or own > rank.number:
        return list(range(rank.of))
    first = rank.number - own
    return list(range(first, min(first + count, rank.of)))


def job_facts() -> dict[str, Any]:
    """Returns what the launcher says of the job that this process is a rank of, as far as it says anything.

    ``none`` is what torchrun calls a job that nobody has named.
    """
    names = {"name": "TORCHELASTIC_RUN_ID", "address": "MASTER_ADDR", "port": "MASTER_PORT"}
    facts: dict[str, Any] = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    facts["key"] = job_key()
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
