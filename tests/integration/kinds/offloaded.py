"""An explicit device_map with layers on disk and a dtype to cast to."""

from __future__ import annotations

import torch
import transformers

LAYERS = {0: "cpu", 1: "disk", 2: "cpu"}


def make(folder):
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def load(folder):
    places = {f"model.layers.{layer}": place for layer, place in LAYERS.items()}
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        device_map={
            "model.embed_tokens": "cpu",
            "model.rotary_emb": "cpu",
            "model.norm": "cpu",
            "lm_head": "cpu",
            **places,
        },
        offload_folder=str(folder / "offload"),
        torch_dtype=torch.bfloat16,
    )


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    offloaded = {name for name, row in rows.items() if row.provenance == "offloaded"}
    assert offloaded == {name for name in rows if name.startswith("model.layers.1.")}
    assert {rows[name].offload for name in offloaded} == {"disk"}
    assert {row.provenance for name, row in rows.items() if name not in offloaded} == {"checkpoint"}
    assert all(len(row.keys) == 1 for row in rows.values())
