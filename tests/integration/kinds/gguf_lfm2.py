"""A GGUF file of LFM2: 4.57 unpacks it, 5.17 and later read it lazily under its own names."""

from __future__ import annotations

import gguf_files
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.57"
KINDS = {"ffn_up": "F16", "ffn_gate": "BF16", "attn_q": "Q4_0"}
HEADS = [0, 2, 0]


def make(folder):
    config = transformers.Lfm2Config(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        conv_L_cache=3,
        block_auto_adjust_ff_dim=False,
        layer_types=["full_attention" if heads else "conv" for heads in HEADS],
    )
    tensors = gguf_files.shapes(config, "lfm2", skip=["output.weight"])
    for key, shape in tensors.items():
        if "shortconv.conv.weight" in key:
            tensors[key] = (shape[0], shape[2])
    facts = {
        **gguf_files.LLAMA_LIKE,
        "block_count": 3,
        "attention.head_count_kv": HEADS,
        "shortconv.l_cache": 3,
    }
    kinds = lambda key: "F32" if "shortconv.conv" in key else KINDS.get(key.split(".")[-2], "Q8_0")  # noqa: E731
    gguf_files.write(folder / "m.gguf", "lfm2", facts, tensors, kinds, tokens=128)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    by_key = gguf_files.rows_by_key(trace)
    assert not any(row.kind == "unused" for row in trace.tensors)
    found = {key: (rows[0].stored_dtype, rows[0].provenance) for key, rows in by_key.items()}
    assert found["token_embd.weight"] == ("Q8_0", "converted")
    assert found["blk.1.attn_q.weight"] == ("Q4_0", "converted")
    assert found["blk.1.ffn_up.weight"] == ("float16", "checkpoint")
    assert found["blk.1.ffn_gate.weight"] == ("bfloat16", "checkpoint")
    assert found["blk.1.attn_norm.weight"] == ("float32", "checkpoint")
    (kernel,) = by_key["blk.0.shortconv.conv.weight"]
    assert (kernel.stored_dtype, kernel.provenance, kernel.shape) == ("float32", "converted", [64, 1, 3])
    gguf_files.assert_file_row(trace, (folder / "m.gguf").stat().st_size)
