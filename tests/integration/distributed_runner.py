"""One rank of a distributed load: holds its ledger against what it has, and leaves what is false in a file.

    torchrun --nproc-per-node N distributed_runner.py HOW FOLDER

HOW is ``tp_plan``, ``plain`` (each rank loads all of it), or a field of ``DistributedConfig``; FOLDER holds
the checkpoint in ``model``. All of it is gloo on CPUs: with NCCL nothing of this was tried.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import transformers
from torch import distributed
from truth import read_checkpoint

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.weights import read_rate


def keywords(how: str) -> dict[str, object]:
    """Returns how ``from_pretrained`` is told to distribute."""
    if how == "tp_plan":
        return {"tp_plan": "auto"}
    if how == "plain":
        return {}
    from transformers.distributed import DistributedConfig

    return {"distributed_config": DistributedConfig(**{how: int(os.environ["WORLD_SIZE"])})}


def mapped_rss(folder: Path) -> int:
    """Returns what this process has touched of the maps of a folder's weight files, by the kernel's word."""
    total, own = 0, False
    with open("/proc/self/smaps", encoding="utf-8") as handle:
        for line in handle:
            head = line.split(None, 5)
            if "-" in head[0]:
                own = len(head) > 5 and Path(head[5].strip()).parent == folder
            elif own and head[0] == "Rss:":
                total += int(head[1]) << 10
    return total


def false_facts(row, tensor: torch.Tensor, stored: torch.Tensor) -> list[str]:
    """Returns what a row says that is not so of a parameter; every rank has to call it for the same ones."""
    part = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else None
    if whole is None:
        # A plain tensor: all of it, or the part that its rank has cut off.
        whole = stored.to(part.dtype)
    said = {
        "provenance": (row.provenance, "checkpoint"),
        "shape": (row.shape, list(part.shape)),
        "bytes": (row.bytes, part.nbytes),
        "global_shape": (row.global_shape, list(whole.shape) if whole.shape != part.shape else None),
        "stored_shape": (row.stored_shape, list(stored.shape)),
        "stored_bytes": (row.stored_bytes, stored.nbytes),
        "values": (torch.equal(whole, stored.to(whole.dtype)), True),
        "placed": (row.placed_ns is not None, True),
    }
    return [
        f"{row.name}: {what} {ours}, really {real}" for what, (ours, real) in said.items() if ours != real
    ]


def main() -> None:
    how, folder = sys.argv[1], Path(sys.argv[2])
    rank = int(os.environ["RANK"])
    transformers.logging.set_verbosity_error()
    if how == "plain" or not hasattr(transformers.PreTrainedModel, "_initialize_missing_keys"):
        distributed.init_process_group("gloo")  # the first generation does not do it by itself
    with hftrace.trace(folder / "trace.json") as recorded:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", **keywords(how))
        in_smaps = mapped_rss(folder / "model")
    # Its own: the file of the one that ends last holds all of them.
    trace = recorded.trace
    stored = read_checkpoint(folder / "model")
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    parameters = dict(model.named_parameters())
    wrong = (
        [f"not the same names: {rows.keys() ^ parameters.keys()}"] if rows.keys() != parameters.keys() else []
    )
    for name, tensor in parameters.items():
        wrong += false_facts(rows[name], tensor, stored[name].tensor)
    result = {
        "ranks": trace.header["ranks"],
        "of": trace.header["world_size"],
        "wrong": wrong,
        "errors": [dict(error) for error in trace.header["errors"]],
        "unused": [row.keys for row in trace.tensors if row.kind == "unused"],
        "parts": sorted(row.name for row in rows.values() if row.global_shape is not None),
        "names": sorted(rows),
        "bytes": sum(
            (tensor.to_local() if hasattr(tensor, "to_local") else tensor).nbytes
            for tensor in parameters.values()
        ),
        "held": sum(
            (tensor.to_local() if hasattr(tensor, "to_local") else tensor).nbytes
            for tensor in [*model.parameters(), *model.buffers()]
        ),
        "touched": [file.touched_bytes for file in trace.files if file.shard is not None],
        "smaps": in_smaps,
        "read": [file.read_bytes for file in trace.files if file.shard is not None],
        "rate": read_rate(trace),
        "findings": [finding.name for finding in findings(trace)],
    }
    (folder / f"result{rank}.json").write_text(json.dumps(result))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
