"""LoRA on the embedding: the adapter's file holds the embedding itself as well, which replaces the base's."""

from __future__ import annotations

import transformers
from adapters import lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(target_modules=["embed_tokens", "q_proj"]))


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 27}
    (row,) = rows_of(trace, "embed_tokens.base_layer")
    assert row.file == "adapter_model.safetensors"
    assert not [row for row in trace.tensors if row.kind == "unused"]
