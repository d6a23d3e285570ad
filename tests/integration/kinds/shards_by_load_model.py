"""Shards that safetensors' `load_model` puts into one model in turn: together they are its ledger."""

from __future__ import annotations

import small_llama
import transformers
from safetensors.torch import load_file, load_model


def make(folder):
    small_llama.write(folder)


def load(folder):
    model = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(folder))
    for path in sorted(folder.glob("*.safetensors")):
        load_model(model, path, strict=False)
    return model


def check(trace, model, folder):
    parameters = [row for row in trace.tensors if row.kind == "parameter"]
    assert {row.provenance for row in parameters} == {"checkpoint"}
    for path in folder.glob("*.safetensors"):
        assert {row.name for row in parameters if row.file == path.name} == set(load_file(path))
