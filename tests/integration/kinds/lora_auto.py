"""A LoRA adapter by its folder alone: the auto class loads the base, wraps it, loads the adapter."""

from __future__ import annotations

import torch
import transformers
from adapters import lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora())


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter", torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 29}
    (row,) = rows_of(trace, "layers.0.self_attn.q_proj.base_layer")
    assert row.keys == ["model.layers.0.self_attn.q_proj.weight"]
    assert row.file == "model.safetensors"
    (row,) = rows_of(trace, "layers.0.self_attn.q_proj.lora_A")
    assert row.keys == ["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    assert row.file == "adapter_model.safetensors"
    assert row.offset is not None
    files = {file.name: file for file in trace.files if file.shard is not None}
    assert files["adapter_model.safetensors"].read_bytes == 4096
    assert files["model.safetensors"].read_bytes == 103040
    (load,) = [span for span in trace.spans if span.phase == "load" and span.parent is None]
    (adapter,) = load.attributes["got"]["adapters"]
    assert (adapter["modules"], adapter["layers"], adapter["base"]) == (4, [0, 1], str(folder / "base"))
    counts = [(each.numel(), each.requires_grad) for each in model.parameters()]
    assert load.attributes["got"]["trainable"] == {
        "parameters": sum(count for count, trained in counts if trained),
        "all": sum(count for count, _ in counts),
    }
