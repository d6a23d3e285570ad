"""A GGUF file of Gemma 2, whose norms are stored with one added to them."""

from __future__ import annotations

import gguf_files
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.48"


def make(folder):
    config = transformers.Gemma2Config(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=256,
    )
    tensors = gguf_files.shapes(config, "gemma2", skip=["output.weight"])
    facts = {**gguf_files.LLAMA_LIKE, "attention.key_length": 256, "attention.sliding_window": 32}
    gguf_files.write(folder / "m.gguf", "gemma2", facts, tensors, lambda key: "F16")


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    rows = [row for row in trace.tensors if row.kind == "parameter" and row.provenance != "tied"]
    assert {row.provenance for row in rows if "norm" in row.name} == {"converted"}
    assert {row.provenance for row in rows if "norm" not in row.name} == {"checkpoint"}
