"""A GGUF file of Qwen 3.5, which transformers reads lazily, and whose heads it puts in order again."""

from __future__ import annotations

import gguf_files
import numpy
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=5.20"
ARCHITECTURE = "qwen35"
FACTS = {
    "context_length": 64,
    "embedding_length": 64,
    "block_count": 2,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 16,
    "attention.value_length": 16,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.freq_base": 10000.0,
    "rope.dimension_count": 8,
    "rope.dimension_sections": [2, 1, 1, 0],
    "full_attention_interval": 2,
    "ssm.conv_kernel": 4,
    "ssm.state_size": 16,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 4,
    "ssm.inner_size": 64,
}
COMMON = {
    "attn_norm.weight": (64,),
    "post_attention_norm.weight": (64,),
}
LINEAR = {
    "attn_qkv.weight": (128, 64),
    "attn_gate.weight": (64, 64),
    "ssm_alpha.weight": (4, 64),
    "ssm_beta.weight": (4, 64),
    "ssm_conv1d.weight": (128, 4),
    "ssm_norm.weight": (16,),
    "ssm_out.weight": (64, 64),
    "ssm_dt.bias": (4,),
}
FULL = {
    "attn_q.weight": (128, 64),
    "attn_k.weight": (32, 64),
    "attn_v.weight": (32, 64),
    "attn_output.weight": (64, 64),
    "attn_q_norm.weight": (16,),
    "attn_k_norm.weight": (16,),
}
DENSE = {"ffn_gate.weight": (96, 64), "ffn_up.weight": (96, 64), "ffn_down.weight": (64, 96)}
KINDS = {"attn_qkv": "Q8_0", "ssm_out": "Q8_0", "ffn_up": "Q4_0", "token_embd": "Q8_0", "attn_output": "F16"}


def tensors(feed_forward):
    found = {"token_embd.weight": (128, 64), "output.weight": (128, 64), "output_norm.weight": (64,)}
    for layer, block in enumerate((LINEAR, FULL)):
        for stem, shape in {**COMMON, **block, **feed_forward}.items():
            found[f"blk.{layer}.{stem}"] = shape
    found["blk.0.ssm_a"] = -numpy.random.default_rng(5).uniform(0.5, 2, 4).astype(numpy.float32)
    return found


def kind_of(key):
    return KINDS.get(key.split(".")[-2])


def make(folder):
    gguf_files.write(folder / "m.gguf", ARCHITECTURE, FACTS, tensors(DENSE), kind_of, tokens=128)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    by_key = gguf_files.rows_by_key(trace)
    assert not any(row.kind == "unused" for row in trace.tensors)
    found = {
        key: (rows[0].name, rows[0].stored_dtype, rows[0].provenance, rows[0].evidence)
        for key, rows in by_key.items()
    }
    linear = "model.layers.0.linear_attn"
    assert found["blk.0.attn_qkv.weight"] == (
        f"{linear}.in_proj_qkv.weight", "Q8_0", "converted", "dequantized"
    )  # fmt: skip
    assert found["blk.0.ssm_a"] == (f"{linear}.A_log", "float32", "converted", "placed")
    assert found["blk.0.ssm_conv1d.weight"][2:] == ("converted", "placed")
    assert found["blk.0.ssm_norm.weight"] == (f"{linear}.norm.weight", "float32", "checkpoint", "placed")
    assert found["output_norm.weight"] == ("model.norm.weight", "float32", "converted", "placed")
    assert found["blk.1.attn_output.weight"][1:] == ("float16", "checkpoint", "placed")
    assert found["blk.1.attn_q.weight"][1:] == ("float32", "checkpoint", "placed")
    gguf_files.assert_file_row(trace, (folder / "m.gguf").stat().st_size)
