"""A model whose class comes with its folder, in the old style: it writes its weights through ``.data``."""

from __future__ import annotations

import json
import os

import torch
import transformers
from packaging.version import Version

SOURCE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

class TinyConfig(PretrainedConfig):
    model_type = "tiny-remote"
    def __init__(self, width=16, **kwargs):
        self.width = width
        super().__init__(**kwargs)

class TinyModel(PreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = "tiny"
    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(32, config.width, padding_idx=0)
        self.blocks = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(2))
        self.head = nn.Linear(config.width, 32)
        self.post_init()
    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(mean=0.0, std=0.02)
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.data.normal_(mean=0.0, std=0.02)
            module.weight.data[module.padding_idx].zero_()
"""
# 5.0 initialises again what code from elsewhere writes by .data.
AGAIN = Version("5.0") <= Version(transformers.__version__) < Version("5.1")
FINDINGS = {"missing-weights", *(("overwritten-weights",) if AGAIN else ())}


def make(folder):
    (folder / "modeling_tiny.py").write_text(SOURCE)
    config = {
        "model_type": "tiny-remote",
        "architectures": ["TinyModel"],
        "auto_map": {"AutoConfig": "modeling_tiny.TinyConfig", "AutoModel": "modeling_tiny.TinyModel"},
        "width": 16,
    }
    (folder / "config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    tensors = {"embed.weight": torch.randn(32, 16)}
    for layer in range(2):
        tensors[f"blocks.{layer}.weight"] = torch.randn(16, 16)
        tensors[f"blocks.{layer}.bias"] = torch.randn(16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def load(folder):
    os.environ["HF_MODULES_CACHE"] = str(folder / "modules")
    return transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)


def check(trace, model, folder):
    rows = {row.name: (row.provenance, row.evidence) for row in trace.tensors}
    assert rows.pop("head.weight") == rows.pop("head.bias") == ("initialized", "initializer")
    assert set(rows.values()) == {("initialized", "overwritten") if AGAIN else ("checkpoint", "placed")}
