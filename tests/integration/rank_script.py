"""One rank that loads all of a model by itself, and one way in which a rank may end.

    torchrun --nproc-per-node 2 rank_script.py FOLDER HOW [RANK]

FOLDER holds the checkpoint in ``model``; HOW is ``ends``, ``reads`` (with a cast from a cold cache; what the
kernel has counted goes to a file), ``reads-again`` (one after the other, each from a cold cache), ``divided``
(with a cast and a plan of tensor parallelism), ``straggles`` (rank RANK takes long to make its model),
``dies`` (rank RANK is killed in its block, and the others wait for it), ``all-die`` (the others are killed
too, in their barrier, and before it) or ``stays-out`` (rank RANK records nothing). When its load begins, by
the wall clock, goes to a file. Under ``hftrace run`` it has no block of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import transformers
from torch import distributed

import hftrace
from hftrace.system import page_cache


def storage_read() -> int:
    """Returns what this process has caused to be read from storage, by the kernel's own count."""
    with open("/proc/self/io", encoding="ascii") as handle:
        return next(int(line.split()[1]) for line in handle if line.startswith("read_bytes"))


def read_weights(folder: Path, rank: int) -> None:
    """Loads with a cast, from a cold cache, and leaves what the kernel counted in a file."""
    transformers.LlamaForCausalLM  # noqa: B018 (its module is imported here, and not in the load)
    if rank == 0:
        page_cache.evict([folder / "model" / "model.safetensors"])
    distributed.barrier()
    before = storage_read()
    transformers.LlamaForCausalLM.from_pretrained(folder / "model", torch_dtype=torch.float32)
    (folder / f"read{rank}.json").write_text(json.dumps(storage_read() - before))


STRAGGLE_SECONDS = 1.5


class SlowLlama(transformers.LlamaForCausalLM):
    """A model that takes its time."""

    def __init__(self, *args, **kwargs):
        time.sleep(STRAGGLE_SECONDS)
        super().__init__(*args, **kwargs)


def main() -> None:
    folder, how = Path(sys.argv[1]), sys.argv[2]
    chosen = int(sys.argv[3]) if len(sys.argv) > 3 else -1
    rank = int(os.environ["RANK"])
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if how == "stays-out" and rank == chosen:
        distributed.init_process_group("gloo")
        distributed.barrier()
        return
    with nullcontext() if "HFTRACE_RUN" in os.environ else hftrace.trace(folder / "trace.json"):
        distributed.init_process_group("gloo")
        distributed.barrier()
        if how == "reads":
            read_weights(folder, rank)
        elif how == "reads-again":
            for turn in range(distributed.get_world_size()):
                if turn == rank:
                    page_cache.evict([folder / "model" / "model.safetensors"])
                    transformers.LlamaForCausalLM.from_pretrained(folder / "model", torch_dtype=torch.float32)
                distributed.barrier()
        elif how == "straggles":
            (SlowLlama if rank == chosen else transformers.LlamaForCausalLM).from_pretrained(folder / "model")
        elif how == "divided":
            transformers.LlamaForCausalLM.from_pretrained(
                folder / "model", torch_dtype=torch.float32, tp_plan="auto"
            )
        else:
            (folder / f"wall{rank}.txt").write_text(str(time.time_ns()))
            transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
        if how in ("dies", "all-die") and rank == chosen:
            time.sleep(0.5 if how == "dies" else 2)  # the others are in their barrier by now
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "all-die":
            signal.setitimer(signal.ITIMER_REAL, 0.3)
        if how != "stays-out":
            distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
