"""Quantised by torchao while it is loaded.

The wrapper says bfloat16 and holds codes, scales and zero points.
"""

from __future__ import annotations

import small_llama
import torch
import transformers

NEEDS = ("torchao",)
VERSIONS = ">=4.57"


def make(folder):
    small_llama.write(folder)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.bfloat16, quantization_config=small_llama.torchao_int8()
    )


def check(trace, model, folder):
    small_llama.check_quantized(trace, "int8")
    small_llama.check_made(trace, model)
