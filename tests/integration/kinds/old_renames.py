"""A custom model with a parameter called gamma, which 4.36 to 4.48 rename to weight, and so lose."""

from __future__ import annotations

import importlib

import torch
import transformers
from packaging.version import Version
from torch import nn

# What leaves alone in 5.x what was loaded.
NEW = Version(transformers.__version__) >= Version("5")
init = importlib.import_module("transformers.initialization") if NEW else nn.init
RENAMED = Version(transformers.__version__) < Version("4.49")
FINDINGS = {"missing-weights", "unused-keys"} if RENAMED else set()


class Config(transformers.PretrainedConfig):
    model_type = "old-renames"


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(8))
        self.LayerNorm = nn.LayerNorm(8)


class Model(transformers.PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.block = Scale()
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, Scale):
            init.constant_(module.gamma, 1.0)


def make(folder):
    model = Model(Config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)


def load(folder):
    return Model.from_pretrained(folder)


def check(trace, model, folder):
    rows = {row.name or row.keys[0]: row for row in trace.tensors}
    assert rows["block.LayerNorm.weight"].provenance == "checkpoint"
    gamma = [row for row in trace.tensors if row.name == "block.gamma"]
    assert [row.provenance for row in gamma] == ["initialized" if RENAMED else "checkpoint"]
    if RENAMED:
        (unused,) = [row for row in trace.tensors if row.kind == "unused"]
        assert (unused.keys, unused.evidence) == (["block.gamma"], "renamed")
