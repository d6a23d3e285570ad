"""LoRA with a trained head of another shape, which ``ignore_mismatched_sizes`` leaves out."""

from __future__ import annotations

import torch
from adapters import load_base, lora, make_adapter, make_base, rows_of
from safetensors.torch import load_file, save_file

NEEDS = ("peft",)
SPARSE = True
FINDINGS = ("missing-weights", "unused-keys")
HEAD = "base_model.model.lm_head.weight"
LORA = "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight"


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(modules_to_save=["lm_head"]))
    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    for key in (HEAD, LORA):
        tensors[key] = torch.ones(3, tensors[key].shape[1])
    save_file(tensors, path, metadata={"format": "pt"})


def load(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(folder), folder / "adapter", ignore_mismatched_sizes=True)


def check(trace, model, folder):
    unused = {key: row.evidence for row in trace.tensors if row.kind == "unused" for key in row.keys}
    assert unused == {HEAD: None, LORA: None}
    (head,) = rows_of(trace, "lm_head.modules_to_save")
    assert head.keys == ["lm_head.weight"]  # of the base
    (missing,) = rows_of(trace, "layers.1.self_attn.v_proj.lora_A")
    assert missing.keys == []
