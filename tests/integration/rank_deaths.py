"""Jobs of which one rank is killed at a random moment, and what each rank was doing then by its own word.

    python rank_deaths.py FOLDER RANKS COUNT SEED

FOLDER holds the checkpoint in ``model``; each job has a folder of its own, ``job0`` and so on, with
``trace.json`` and ``truth.json``. The ranks are forked by a launcher that has imported everything, and which
ends the others some seconds after the first death, as torchrun does. gloo on CPUs: NCCL was not tried.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from torch import distributed

import hftrace

LONGEST_SECONDS = 1.2
"""Later than a rank is ready with all it does, and with the trace of it."""
GRACE_SECONDS = 2.0
LIMIT_SECONDS = 60.0
LAG_SECONDS = 0.15
"""By which each rank comes later to the second barrier than the one before: somebody always waits."""


@contextlib.contextmanager
def noted(folder: Path, rank: int, what: str) -> Iterator[None]:
    """Writes down between which two moments a rank was in something."""
    with open(folder / f"says{rank}.txt", "a", encoding="ascii") as handle:
        handle.write(f"{what} begins {time.monotonic_ns()}\n")
        handle.flush()
        yield
        handle.write(f"{what} ends {time.monotonic_ns()}\n")


def work(folder: Path, job: Path, rank: int) -> None:
    """Is one rank."""
    with hftrace.trace(job / "trace.json"):
        (job / f"entered{rank}").touch()
        with noted(job, rank, "init_process_group"):
            distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=30))
        with noted(job, rank, "barrier"):
            distributed.barrier()
        transformers.LlamaForCausalLM.from_pretrained(folder / "model")
        time.sleep(rank * LAG_SECONDS)
        with noted(job, rank, "barrier"):
            distributed.barrier()


def start(folder: Path, job: Path, rank: int, ranks: int, port: int) -> int:
    """Forks one rank; returns its process."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_WORLD_SIZE=str(ranks))
        work(folder, job, rank)
        os._exit(0)
    except BaseException:
        (job / f"error{rank}.txt").write_text(traceback.format_exc())
        os._exit(1)


def run(folder: Path, job: Path, ranks: int, chance: random.Random) -> None:
    """Runs one job, kills one of its ranks, and writes down which, when, and what the others did."""
    job.mkdir()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    victim, after = chance.randrange(ranks), chance.uniform(0, LONGEST_SECONDS)
    pids = [start(folder, job, rank, ranks, port) for rank in range(ranks)]
    while not (job / f"entered{victim}").exists():
        time.sleep(0.002)
    time.sleep(after)
    living = os.waitpid(pids[victim], os.WNOHANG)[0] == 0
    before = time.monotonic_ns()
    if living:
        os.kill(pids[victim], signal.SIGKILL)
    ended: dict[int, int] = {}
    until = time.monotonic() + (GRACE_SECONDS if living else LIMIT_SECONDS)
    waiting = {rank for rank in range(ranks) if rank != victim}
    while waiting:
        for rank in list(waiting):
            pid, status = os.waitpid(pids[rank], os.WNOHANG)
            if pid:
                ended[rank] = os.waitstatus_to_exitcode(status)
                waiting.discard(rank)
            elif time.monotonic() > until:
                os.kill(pids[rank], signal.SIGTERM)
        time.sleep(0.01)
    if living:
        living = os.WIFSIGNALED(os.waitpid(pids[victim], 0)[1])
    truth = {"victim": victim, "after": after, "killed": living, "moment_ns": before, "ended": ended}
    (job / "truth.json").write_text(json.dumps(truth))


def main() -> None:
    folder, ranks, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    transformers.LlamaForCausalLM  # noqa: B018 (imported once, and not by each rank)
    chance = random.Random(int(sys.argv[4]))
    for number in range(count):
        run(folder, folder / f"job{number}", ranks, chance)


if __name__ == "__main__":
    main()
