"""One rank that saves a model of FSDP2 by torch.distributed.checkpoint, and loads it into another one.

    torchrun --nproc-per-node N sharded_runner.py FOLDER

Leaves in ``result{rank}.json`` what this rank holds, asked of its DTensors. gloo on CPUs: NCCL was not tried.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import small_llama
import torch
import torch.distributed.checkpoint as dcp
import transformers
from torch import distributed
from torch.distributed.fsdp import fully_shard

import hftrace


def make() -> torch.nn.Module:
    """Returns a model with random weights, of which this rank has its part."""
    model = transformers.LlamaForCausalLM(small_llama.config(vocab_size=1024))
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    return model


def local(model: torch.nn.Module) -> list[torch.Tensor]:
    """Returns the parts that this rank holds."""
    return [parameter.to_local() for parameter in model.parameters()]


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    torch.manual_seed(1)
    saved, model = make(), make()
    dcp.save({"model": saved.state_dict()}, checkpoint_id=folder / "sharded")
    with hftrace.trace(folder / "trace.json"):
        state = {"model": model.state_dict()}
        dcp.load(state, checkpoint_id=folder / "sharded")
    same = [torch.equal(ours, theirs) for ours, theirs in zip(local(model), local(saved), strict=True)]
    result = {
        "same": all(same),
        "tensors": len(same),
        "bytes": sum(part.nbytes for part in local(model)),
    }
    (folder / f"result{rank}.json").write_text(json.dumps(result))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
