"""A dense model in shards, cast: nothing about it is special."""

from __future__ import annotations

import torch
import transformers


def make(folder):
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="30KB")


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert {row.provenance for row in rows} == {"checkpoint"}
    assert {(row.stored_dtype, row.dtype) for row in rows} == {("float32", "bfloat16")}
