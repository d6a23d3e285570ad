"""A GGUF file of Qwen2 in blocks of several types, with biases, whose head is its embedding."""

from __future__ import annotations

import gguf_files
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.48"
"""Up to 4.46 the config does not say that the head is the embedding: it is initialised."""
KINDS = {"attn_q": "Q4_0", "attn_k": "Q4_1", "attn_v": "Q5_0", "attn_output": "Q5_1", "ffn_up": "F16"}


def make(folder):
    config = transformers.Qwen2Config(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    tensors = gguf_files.shapes(config, "qwen2", skip=["output.weight"])
    kinds = lambda key: KINDS.get(key.split(".")[-2], "Q8_0")  # noqa: E731
    gguf_files.write(folder / "m.gguf", "qwen2", gguf_files.LLAMA_LIKE, tensors, kinds)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    from hftrace.analysis.ledger.tensors import casts, tensor_sums

    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert rows["lm_head.weight"].provenance == "tied"
    assert rows["lm_head.weight"].tied_to == "model.embed_tokens.weight"
    attention = "model.layers.1.self_attn"
    found = {name: (row.stored_dtype, row.provenance) for name, row in rows.items()}
    assert found["model.embed_tokens.weight"] == ("Q8_0", "converted")
    assert found[f"{attention}.q_proj.weight"] == ("Q4_0", "converted")
    assert found[f"{attention}.k_proj.weight"] == ("Q4_1", "converted")
    assert found[f"{attention}.v_proj.weight"] == ("Q5_0", "converted")
    assert found[f"{attention}.o_proj.weight"] == ("Q5_1", "converted")
    assert found[f"{attention}.q_proj.bias"] == ("float32", "checkpoint")
    assert found["model.layers.0.mlp.up_proj.weight"] == ("float16", "checkpoint")
    assert rows["model.embed_tokens.weight"].stored_bytes == 128 * 2 * 34
    # A dequantised tensor is no cast.
    assert set(casts(tensor_sums(trace))) == {("float16", "float32")}
    gguf_files.assert_file_row(trace, (folder / "m.gguf").stat().st_size)
