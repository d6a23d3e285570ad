"""A GGUF file in bfloat16, loaded in bfloat16: nothing about it is quantised, and one key is left over."""

from __future__ import annotations

import gguf_files
import torch
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.46"
FINDINGS = ("unused-keys",)


def make(folder):
    config = transformers.Qwen2Config(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    tensors = gguf_files.shapes(config, "qwen2") | {"blk.0.something_new.weight": (64, 64)}
    gguf_files.write(folder / "m.gguf", "qwen2", gguf_files.LLAMA_LIKE, tensors, lambda key: "BF16")


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="m.gguf", torch_dtype=torch.bfloat16
    )


def check(trace, model, folder):
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert {row.provenance for row in rows} == {"checkpoint"}
    assert {row.dtype for row in rows} == {"bfloat16"}
    assert {row.stored_dtype for row in rows} == {"bfloat16", "float32"}
    (unused,) = [row for row in trace.tensors if row.kind == "unused"]
    assert unused.keys == ["blk.0.something_new.weight"]
    assert (unused.stored_dtype, unused.shape, unused.stored_bytes) == ("bfloat16", [64, 64], 8192)
