"""DoRA: magnitude vectors beside the two matrices; 5.24 with this peft does not load them."""

from __future__ import annotations

import transformers
from adapters import lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)
VERSIONS = "<5"


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(use_dora=True))


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 33}
    for row in rows_of(trace, "lora_magnitude_vector"):
        assert row.file == "adapter_model.safetensors"
