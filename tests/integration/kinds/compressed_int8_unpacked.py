"""Saved by compressed-tensors, int8 by channel, and made plain numbers again."""

from __future__ import annotations

import small_llama
import torch
import transformers

NEEDS = ("compressed-tensors",)
VERSIONS = ">=4.57"


def make(folder):
    small_llama.write_compressed(folder, bits=8, form="int-quantized")


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.bfloat16, quantization_config=small_llama.decompressing()
    )


def check(trace, model, folder):
    for row in small_llama.linears(trace):
        assert (row.provenance, row.dtype) == ("converted", "bfloat16")
        assert sorted(row.keys) == sorted(row.name + part for part in ("", "_scale"))
    small_llama.check_others(trace)
