"""One module under two names, each with values of its own in the file: one of them is lost."""

from __future__ import annotations

import torch
import transformers
from safetensors.torch import load_file, save_file

FINDINGS = ("tied-over-own-key",)


class Twice(transformers.PreTrainedModel):
    config_class = transformers.PretrainedConfig
    base_model_prefix = "body"

    def __init__(self, config):
        super().__init__(config)
        self.body = torch.nn.Linear(16, 16)
        self.again = self.body
        self.post_init()


def make(folder):
    config = transformers.PretrainedConfig()
    config.save_pretrained(folder)
    names = Twice(config).state_dict()
    tensors = {name: torch.randn_like(tensor) for name, tensor in names.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def load(folder):
    return Twice.from_pretrained(folder)


def check(trace, model, folder):
    stored = load_file(folder / "model.safetensors")
    for row in trace.tensors:
        # 4.48 assigns both to the one module, and what comes last stays.
        held = torch.equal(model.get_parameter(row.name), stored[row.keys[0]])
        assert held is (row.provenance == "checkpoint"), row
        assert row.own_key_equal is (None if held else False)
