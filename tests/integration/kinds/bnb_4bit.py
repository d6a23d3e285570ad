"""Quantised by bitsandbytes while it is loaded, to 4 bits: codes, and statistics as attributes."""

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
        quantization_config=transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        ),
    )


def check(trace, model, folder):
    small_llama.check_quantized(trace, "uint8")
    small_llama.check_made(trace, model)
