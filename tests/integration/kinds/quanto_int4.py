"""Quantised by optimum-quanto while it is loaded, to 4 bits.

The wrapper says bfloat16 and holds codes and scales.
"""

from __future__ import annotations

import small_llama
import torch
import transformers

NEEDS = ("optimum-quanto",)
VERSIONS = ">=4.46"


def make(folder):
    small_llama.write(folder)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.bfloat16, quantization_config=transformers.QuantoConfig(weights="int4")
    )


def check(trace, model, folder):
    assert {row.provenance for row in trace.tensors if row.kind == "buffer"} == {"computed"}
    small_llama.check_quantized(trace, "uint8")
    small_llama.check_made(trace, model)
