"""A custom model whose ``_init_weights`` writes over what was loaded.

From 5.0 on the loader calls it for every module, and only the functions of
``transformers.initialization`` leave a loaded tensor alone. Where the class
does not count as remote code nothing else does.
"""

from __future__ import annotations

import transformers
from packaging.version import Version
from torch import nn

VERSION = Version(transformers.__version__)
ALWAYS = Version("5") <= VERSION
FINDINGS = {"overwritten-weights"} if ALWAYS else set()


class Config(transformers.PretrainedConfig):
    model_type = "overwritten"


class Model(transformers.PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.first = nn.Linear(16, 16)
        self.second = nn.Linear(16, 16)
        self.post_init()

    # The loader takes a class outside of transformers for remote code, whose loaded modules it leaves alone.
    @classmethod
    def is_custom_code(cls):
        return False

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            module.weight.data.normal_()


def make(folder):
    Model(Config()).save_pretrained(folder)


def load(folder):
    return Model.from_pretrained(folder)


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors}
    assert (rows["first.bias"].provenance, rows["first.bias"].evidence) == ("checkpoint", "placed")
    row = rows["second.weight"]
    assert row.keys == ["second.weight"]
    expected = ("initialized", "overwritten") if ALWAYS else ("checkpoint", "placed")
    assert (row.provenance, row.evidence) == expected
