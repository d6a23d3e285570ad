"""A module that makes its weight of another key, in ``_load_from_state_dict``: few loaders call that."""

from __future__ import annotations

import transformers
from adapters import rows_of
from packaging.version import Version
from safetensors.torch import load_file, save_file
from torch import nn
from truth import randomize

CALLED = Version(transformers.__version__) < Version("4.51")
WARNED = ("uncalled-hooks",) if Version(transformers.__version__) >= Version("5.0") else ()
FINDINGS = ("unknown-weights",) if CALLED else ("missing-weights", "unused-keys")


class Config(transformers.PretrainedConfig):
    model_type = "own_loading"


class Transposed(nn.Linear):
    def _load_from_state_dict(self, state_dict, prefix, *others):
        if f"{prefix}kernel" in state_dict:
            state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel").t()
        super()._load_from_state_dict(state_dict, prefix, *others)


class Model(transformers.PreTrainedModel):
    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.first = Transposed(16, 24)
        self.second = nn.Linear(24, 16)
        self.post_init()

    def _init_weights(self, module):
        if module is self.first and not getattr(module.weight, "_is_hf_initialized", False):
            nn.init.normal_(module.weight)


def make(folder):
    model = Model(Config())
    randomize(model)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["first.kernel"] = tensors.pop("first.weight").t().contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder):
    return Model.from_pretrained(folder)


def check(trace, model, folder):
    kernel = load_file(folder / "model.safetensors")["first.kernel"]
    assert model.first.weight.equal(kernel.t()) == CALLED
    (row,) = rows_of(trace, "first.weight")
    (left,) = [row for row in trace.tensors if row.kind == "unused"]
    assert left.keys == ["first.kernel"]
    if CALLED:
        assert (row.provenance, row.evidence, left.evidence) == ("unknown", "written_in_place", "own_code")
    else:
        assert (row.provenance, left.evidence) == ("initialized", None)
