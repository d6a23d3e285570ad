"""A class whose ``__init__`` loads a part of it: files of one name, and up to 4.50 a part that is kept."""

from __future__ import annotations

import os

import transformers
from packaging.version import Version
from safetensors.torch import load_file, save_file
from truth import randomize

VERSIONS = "<5"
"""5.x refuses to load one model in the ``__init__`` of another."""
KEPT = Version(transformers.__version__) < Version("4.51")
FINDINGS = () if KEPT else ("uninitialized-weights",)
BERT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 99,
}


class Config(transformers.PretrainedConfig):
    model_type = "loaded_in_init"


class Model(transformers.PreTrainedModel):
    config_class = Config
    base_model_prefix = "none"

    def __init__(self, config):
        super().__init__(config)
        inner = getattr(config, "inner", None)
        bert = transformers.BertModel
        self.first = bert.from_pretrained(inner) if inner else bert(transformers.BertConfig(**BERT))
        self.second = bert.from_pretrained(inner) if inner else bert(transformers.BertConfig(**BERT))
        self.post_init()

    def _init_weights(self, module):
        pass


def make(folder):
    inner = transformers.BertModel(transformers.BertConfig(**BERT))
    randomize(inner, 3)
    inner.save_pretrained(folder / "inner")
    model = Model(Config(inner=os.fspath(folder / "inner")))
    randomize(model)
    model.save_pretrained(folder / "outer")
    path = folder / "outer" / "model.safetensors"
    tensors = {key: value for key, value in load_file(path).items() if key.startswith("first.")}
    save_file(tensors, path, metadata={"format": "pt"})


def load(folder):
    return Model.from_pretrained(folder / "outer")


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    outer, inner = (os.fspath(folder / name / "model.safetensors") for name in ("outer", "inner"))
    for name, row in rows.items():
        if name.startswith("first."):
            assert (row.provenance, row.keys, row.file) == ("checkpoint", [name], outer)
        elif KEPT:
            own = name.removeprefix("second.")
            assert (row.provenance, row.keys, row.file) == ("checkpoint", [own], inner)
        else:
            assert row.provenance == "uninitialized"
    assert not [row for row in trace.tensors if row.kind == "unused"]
