"""Shards with layers on disk: up to 4.49 what is for the CPU waits in a folder, and is put in from there."""

from __future__ import annotations

import transformers
from adapters import provenances
from truth import randomize


def make(folder):
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=128,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=False,
        )
    )
    randomize(model)
    model.save_pretrained(folder / "base", max_shard_size="20KB")


def load(folder):
    places = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb"), "cpu")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder / "base",
        device_map={**places, "lm_head": "cpu", "model.layers.1": "disk"},
        offload_folder=folder / "offloaded",
    )


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 12, "offloaded": 9}
