"""Shards that the program reads itself and hands to one model in turn: together they are its ledger."""

from __future__ import annotations

import small_llama
import transformers
from safetensors.torch import load_file


def make(folder):
    small_llama.write(folder)


def load(folder):
    model = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(folder))
    for path in sorted(folder.glob("*.safetensors")):
        model.load_state_dict(load_file(path), strict=False)
    return model


def check(trace, model, folder):
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 2
    parameters = [row for row in trace.tensors if row.kind == "parameter"]
    assert {row.provenance for row in parameters} == {"checkpoint"}
    for shard in shards:
        stored = load_file(folder / shard)
        assert {row.name for row in parameters if row.file == shard} == set(stored)
