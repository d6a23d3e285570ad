"""An adapter in a pickle, which 5.x no longer looks for."""

from __future__ import annotations

import transformers
from adapters import lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)
VERSIONS = "<5"


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(), safe_serialization=False)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 29}
    assert {row.file for row in rows_of(trace, "lora_B")} == {"adapter_model.bin"}
    assert {file.format for file in trace.files if file.name == "adapter_model.bin"} == {"pickle"}
