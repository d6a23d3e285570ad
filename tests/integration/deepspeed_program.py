"""Loads a small Llama under DeepSpeed's ZeRO-3, on the CPU and in one process, and prints what came of it.

    python tests/integration/deepspeed_program.py FOLDER TRACE

FOLDER is where the checkpoint is made. Needs deepspeed, which is in no environment of the tests
(``DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed``).
"""

from __future__ import annotations

import json
import os
import sys

os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}

import deepspeed
import small_llama
import torch
import transformers
from transformers.integrations import HfDeepSpeedConfig

import hftrace

if __name__ == "__main__":
    folder, out = sys.argv[1:]
    rendezvous = f"file://{os.path.abspath(folder)}.rendezvous"
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, init_method=rendezvous)
    deepspeed.init_distributed("gloo")
    small_llama.write(folder)
    # It counts as long as it is there.
    config = HfDeepSpeedConfig(
        {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": False}}
    )
    with hftrace.trace(out):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    found = {name: [list(each.shape), list(each.ds_shape)] for name, each in model.named_parameters()}
    sys.stdout.write("FOUND" + json.dumps(found) + "\n")
    del config
