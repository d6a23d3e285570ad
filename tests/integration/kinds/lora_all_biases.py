"""An adapter that has the model's own biases too: they take the place of the base checkpoint's."""

from __future__ import annotations

import transformers
from adapters import lora, make_adapter, make_base, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder, attention_bias=True)
    make_adapter(folder, lora(bias="all"))


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")


def check(trace, model, folder):
    for row in rows_of(trace, "_proj"):
        if row.name.endswith("bias"):
            assert (row.provenance, row.file) == ("checkpoint", "adapter_model.safetensors")
    assert {row.evidence for row in trace.tensors if row.kind == "unused"} <= {"overtaken"}
