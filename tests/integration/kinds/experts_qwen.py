"""Qwen3-MoE in one file, cast: its experts are merged by 5.x."""

from __future__ import annotations

import torch
import transformers

VERSIONS = ">=4.51"


def make(folder):
    config = transformers.Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        decoder_sparse_step=1,
        mlp_only_layers=[0],
    )
    transformers.Qwen3MoeForCausalLM(config).save_pretrained(folder)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors}
    if transformers.__version__ < "5":
        assert {row.provenance for row in trace.tensors if row.kind == "parameter"} == {"checkpoint"}
        return
    row = rows["model.layers.1.mlp.experts.gate_up_proj"]
    assert row.keys == [
        f"model.layers.1.mlp.experts.{expert}.{part}_proj.weight"
        for expert in range(4)
        for part in ("gate", "up")
    ]
    assert (row.file, row.files, row.offset) == ("model.safetensors", None, None)
    assert (row.stored_dtype, row.dtype) == ("float32", "bfloat16")
    assert rows["model.layers.0.mlp.gate_proj.weight"].provenance == "checkpoint"
