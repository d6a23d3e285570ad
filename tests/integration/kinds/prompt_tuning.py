"""Prompt tuning: an embedding of its own beside the model, whose embedding has a second name."""

from __future__ import annotations

from adapters import load_base, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)
VERSIONS = ">=4.46"
"""peft 0.21 looks into a config as into a dictionary, which 4.44 does not have."""


def make(folder):
    from peft import PromptTuningConfig

    make_base(folder)
    make_adapter(folder, PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))


def load(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(folder), folder / "adapter")


def check(trace, model, folder):
    (row,) = rows_of(trace, "prompt_encoder")
    assert (row.provenance, row.keys) == ("checkpoint", ["prompt_embeddings"])
    assert row.file == "adapter_model.safetensors"
    assert set(provenances(trace)) <= {"checkpoint", "tied"}
