"""``gamma`` beside ``weight`` in one module: old versions call both ``weight``, and lose one of them."""

from __future__ import annotations

import torch
import transformers
from truth import randomize

RENAMES = transformers.__version__ < "4.49"
FINDINGS = ("unknown-weights", "unused-keys") if RENAMES else ()


class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = torch.nn.Parameter(torch.ones(16))
        self.weight = torch.nn.Parameter(torch.ones(16))


class Both(transformers.PreTrainedModel):
    config_class = transformers.PretrainedConfig
    base_model_prefix = "body"

    def __init__(self, config):
        super().__init__(config)
        self.scale = Scale()
        self.post_init()

    def _init_weights(self, module):
        pass


def make(folder):
    model = Both(transformers.PretrainedConfig())
    randomize(model)
    model.save_pretrained(folder)


def load(folder):
    return Both.from_pretrained(folder)


def check(trace, model, folder):
    if RENAMES:
        (row,) = [row for row in trace.tensors if row.name == "scale.weight"]
        assert row.keys == ["scale.gamma"]
        # Nobody left it out on purpose.
        assert {row.evidence for row in trace.tensors if row.kind == "unused"} == {None}
