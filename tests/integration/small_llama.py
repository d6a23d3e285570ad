"""A Llama of two layers with random weights, for the kinds that quantise it."""

from __future__ import annotations

import torch
import transformers
from truth import randomize


def config(**changes):
    """Returns its configuration."""
    values = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }
    return transformers.LlamaConfig(**{**values, **changes})


def write(folder, dtype=torch.bfloat16, **changes):
    """Saves it, in shards."""
    model = transformers.LlamaForCausalLM(config(**changes)).to(dtype)
    randomize(model)
    model.save_pretrained(folder, max_shard_size="60KB")


def linears(trace):
    """Returns the rows of the weights inside the layers that a quantiser takes: all but the norms."""
    return [
        row
        for row in trace.tensors
        if row.kind != "unused"
        and row.name.startswith("model.layers.")
        and row.name.endswith(".weight")
        and "norm" not in row.name
    ]


def others(trace):
    """Returns the rows of the parameters that no quantiser takes: embeddings, norms and the head."""
    taken = {row.name for row in linears(trace)}
    return [row for row in trace.tensors if row.kind == "parameter" and row.name not in taken]
