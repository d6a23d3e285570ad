"""Saved by torchao and loaded again: all keys that make one parameter are its keys."""

from __future__ import annotations

import small_llama
import torch
import transformers

NEEDS = ("torchao",)
VERSIONS = ">=5.20"


def make(folder):
    small_llama.write(folder / "full")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "full", torch_dtype=torch.bfloat16, quantization_config=small_llama.torchao_int8()
    )
    model.save_pretrained(folder / "saved")


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "saved", torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    small_llama.check_quantized(trace, "int8")
    for row in small_llama.linears(trace):
        module = row.name.removesuffix("weight")
        assert sorted(row.keys) == sorted(
            f"{module}_weight_{part}" for part in ("qdata", "scale", "zero_point")
        )
    small_llama.check_not_made(trace)
