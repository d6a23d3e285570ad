"""An adapter and its base, whose folders are moved away after the load."""

from __future__ import annotations

import transformers
from adapters import lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora())


def load(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")
    for name in ("adapter", "base"):
        (folder / name).rename(folder / f"{name}-away")
    return model


def check(trace, model, folder):
    for name in ("adapter", "base"):
        (folder / f"{name}-away").rename(folder / name)  # what the tensors are held against
    assert provenances(trace) == {"checkpoint": 29}
    assert {(row.file, row.stored_dtype) for row in rows_of(trace, "lora_B")} == {
        ("adapter_model.safetensors", "float32")
    }
    assert {file.afterwards for file in trace.files if file.shard is not None} == {"gone"}
