"""A GGUF file of Llama in blocks of 256 values, as most that are passed around."""

from __future__ import annotations

import gguf_files
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.46"
KINDS = {
    "attn_q": "Q4_K",
    "attn_k": "Q5_K",
    "attn_v": "Q6_K",
    "attn_output": "Q2_K",
    "ffn_gate": "Q3_K",
    "ffn_up": "IQ4_XS",
    "ffn_down": "IQ4_NL",
}


def make(folder):
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    tensors = gguf_files.shapes(config, "llama")
    facts = {
        **gguf_files.LLAMA_LIKE,
        "embedding_length": 256,
        "feed_forward_length": 512,
        "block_count": 1,
        "attention.head_count_kv": 4,
        "vocab_size": 64,
        "rope.dimension_count": 64,
    }
    kinds = lambda key: KINDS.get(key.split(".")[-2], "Q6_K")  # noqa: E731
    gguf_files.write(folder / "m.gguf", "llama", facts, tensors, kinds)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    by_key = gguf_files.rows_by_key(trace)
    for stem, kind in KINDS.items():
        (row,) = by_key[f"blk.0.{stem}.weight"]
        assert (row.stored_dtype, row.provenance, row.dtype) == (kind, "converted", "float32")
    assert by_key["output.weight"][0].stored_bytes == 64 * 210
    gguf_files.assert_file_row(trace, (folder / "m.gguf").stat().st_size)
