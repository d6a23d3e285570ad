"""Saved by compressed-tensors, int8 by channel: the codes are read as they are."""

from __future__ import annotations

import small_llama
import torch
import transformers

NEEDS = ("compressed-tensors",)
VERSIONS = ">=4.57"


def make(folder):
    small_llama.write_compressed(folder, bits=8, form="int-quantized")


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    for row in small_llama.linears(trace):
        assert (row.provenance, row.keys, row.stored_dtype, row.dtype) == (
            "checkpoint",
            [row.name],
            "int8",
            "int8",
        )
    small_llama.check_others(trace)
