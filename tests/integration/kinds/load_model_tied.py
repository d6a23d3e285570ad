"""safetensors' ``load_model`` into a model whose head is tied: the file has one key, and both have it."""

from __future__ import annotations

import transformers
from adapters import make_base, provenances, rows_of
from safetensors.torch import load_model


def make(folder):
    make_base(folder, tie_word_embeddings=True)


def load(folder):
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(folder / "base"))
    load_model(model, folder / "base" / "model.safetensors")
    return model


def check(trace, model, folder):
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert provenances(trace) == {"checkpoint": 20, "tied": 1}
    (row,) = rows_of(trace, "lm_head")
    assert row.tied_to == "model.embed_tokens.weight"
