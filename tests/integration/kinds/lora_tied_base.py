"""A LoRA adapter around a base whose head is tied."""

from __future__ import annotations

import transformers
from adapters import lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder, tie_word_embeddings=True)
    make_adapter(folder, lora())


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 28, "tied": 1}
    (row,) = rows_of(trace, "lm_head")
    assert row.tied_to == "model.embed_tokens.weight"
