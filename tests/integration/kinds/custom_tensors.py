"""A custom model: a buffer outside of the state dict, and parameters that the checkpoint does not have.

5.x builds buffers on the meta device too: what ``__init__`` gives one is lost
unless ``_init_weights`` writes it. The same holds for parameters from 4.51 on.
"""

from __future__ import annotations

import torch
import transformers
from packaging.version import Version
from safetensors.torch import load_file, save_file
from torch import nn

VERSION = Version(transformers.__version__)
META = Version("4.51") <= VERSION
META_BUFFERS = Version("5") <= VERSION
FINDINGS = {"missing-weights", "uninitialized-weights"} if META else {"missing-weights", "unknown-weights"}


class Config(transformers.PretrainedConfig):
    model_type = "custom-tensors"


class Model(transformers.PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(16, 16)
        self.scale = nn.Parameter(torch.ones(16))
        self.forgotten = nn.Parameter(torch.ones(16))
        self.register_buffer("lost", torch.arange(16.0), persistent=False)
        self.register_buffer("kept", torch.arange(16.0), persistent=False)
        self.register_buffer("saved", torch.arange(16.0))
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            if META_BUFFERS:
                from transformers import initialization

                initialization.normal_(module.weight)
            else:
                module.weight.data.normal_()
        elif isinstance(module, Model):
            with torch.no_grad():
                module.scale.data[:8].fill_(2.0)
                module.scale.data[8:].fill_(3.0)
                module.kept.copy_(torch.arange(16.0))


def make(folder):
    model = Model(Config())
    with torch.no_grad():
        for tensor in (*model.parameters(), model.saved):
            tensor.normal_()
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["scale"], tensors["forgotten"]
    save_file(tensors, path, {"format": "pt"})


def load(folder):
    return Model.from_pretrained(folder)


def check(trace, model, folder):
    rows = {row.name: (row.provenance, row.evidence) for row in trace.tensors}
    assert rows["linear.weight"] == rows["linear.bias"] == rows["saved"] == ("checkpoint", "placed")
    assert rows["scale"] == ("initialized", "initializer")
    assert rows["forgotten"] == (("uninitialized", "allocated") if META else ("unknown", None))
    assert rows["kept"] == ("computed", "initializer" if META_BUFFERS else rows["kept"][1])
    assert rows["lost"] == (("uninitialized", "allocated") if META_BUFFERS else ("computed", "built"))
