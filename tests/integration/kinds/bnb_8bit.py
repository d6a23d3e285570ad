"""Quantised by bitsandbytes while it is loaded, to 8 bits: codes, with scales as attributes."""

from __future__ import annotations

import small_llama
import torch
import transformers

NEEDS = ("bitsandbytes",)
VERSIONS = ">=4.53"


def make(folder):
    small_llama.write(folder)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        torch_dtype=torch.bfloat16,
        device_map="cpu",
        quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True),
    )


def check(trace, model, folder):
    small_llama.check_quantized(trace, "int8")
    small_llama.check_made(trace, model)
