"""Experts of gpt-oss in blocks of four bits, made plain again where the kernels for them are missing."""

from __future__ import annotations

import json

import torch
import transformers
from safetensors.torch import load_file, save_file
from truth import randomize

VERSIONS = ">=4.57"
WARNED = ("quant-not-realised",)


def make(folder):
    config = transformers.GptOssConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"],
    )
    model = transformers.GptOssForCausalLM(config).to(torch.bfloat16)
    randomize(model)
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, columns, rows = tensors.pop(name).shape
        blocks = (experts, rows, columns // 32)
        tensors[f"{name}_blocks"] = torch.randint(0, 256, (*blocks, 16), dtype=torch.uint8)
        tensors[f"{name}_scales"] = torch.randint(120, 128, blocks, dtype=torch.uint8)
    save_file(tensors, path, metadata={"format": "pt"})
    saved = json.loads((folder / "config.json").read_text())
    saved["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    }
    (folder / "config.json").write_text(json.dumps(saved))


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    experts = [row for row in rows if row.name.endswith(("gate_up_proj", "down_proj"))]
    assert len(experts) == 4
    for row in experts:
        assert (row.provenance, row.dtype) == ("converted", "bfloat16")
        assert sorted(row.keys) == [f"{row.name}_blocks", f"{row.name}_scales"]
    assert {row.provenance for row in rows if row not in experts} == {"checkpoint"}
    assert not [row for row in trace.tensors if row.kind == "unused"]
