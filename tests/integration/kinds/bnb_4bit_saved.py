"""Saved by bitsandbytes in 4 bits and loaded again: all keys that make one parameter are its keys."""

from __future__ import annotations

import small_llama
import torch
import transformers

NEEDS = ("bitsandbytes",)
VERSIONS = ">=4.53"
PARTS = (
    "weight",
    "weight.absmax",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    "weight.quant_map",
    "weight.quant_state.bitsandbytes__nf4",
)


def make(folder):
    small_llama.write(folder / "full")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "full",
        torch_dtype=torch.bfloat16,
        device_map="cpu",
        quantization_config=transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        ),
    )
    model.save_pretrained(folder / "saved")


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder / "saved", torch_dtype=torch.bfloat16, device_map="cpu"
    )


def check(trace, model, folder):
    small_llama.check_quantized(trace, "uint8")
    for row in small_llama.linears(trace):
        module = row.name.removesuffix(".weight")
        assert sorted(row.keys) == sorted(f"{module}.{part}" for part in PARTS)
    small_llama.check_not_made(trace)
