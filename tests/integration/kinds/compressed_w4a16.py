"""Saved by compressed-tensors, four bits packed into int32: the codes are read as they are."""

from __future__ import annotations

import small_llama
import torch
import transformers

NEEDS = ("compressed-tensors",)
VERSIONS = ">=4.57"


def make(folder):
    small_llama.write_compressed(folder, bits=4, form="pack-quantized", group=32)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    for row in small_llama.linears(trace, "weight_packed"):
        assert (row.provenance, row.keys, row.stored_dtype, row.dtype) == (
            "checkpoint",
            [row.name],
            "int32",
            "int32",
        )
    small_llama.check_others(trace)
