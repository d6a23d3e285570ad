"""A LoRA adapter that trained a whole module: the model's own stays beside the adapter's."""

from __future__ import annotations

import transformers
from adapters import lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(modules_to_save=["lm_head"]))


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 30}
    (row,) = rows_of(trace, "lm_head.original_module")
    assert (row.keys, row.file) == (["lm_head.weight"], "model.safetensors")
    (row,) = rows_of(trace, "lm_head.modules_to_save")
    assert (row.keys, row.file) == (["base_model.model.lm_head.weight"], "adapter_model.safetensors")
