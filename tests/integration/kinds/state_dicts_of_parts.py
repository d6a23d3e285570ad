"""Parts of a loaded model that each take what is theirs of another file: none of its keys went nowhere."""

from __future__ import annotations

import small_llama
import transformers
from safetensors.torch import load_file


def make(folder):
    small_llama.write(folder / "first", shards="1GB")
    small_llama.write(folder / "second", shards="1GB")


def load(folder):
    model = transformers.LlamaForCausalLM.from_pretrained(folder / "first")
    tensors = load_file(folder / "second" / "model.safetensors")
    for name in ("model", "lm_head"):
        own = {key[len(name) + 1 :]: each for key, each in tensors.items() if key.startswith(f"{name}.")}
        getattr(model, name).load_state_dict(own)
    return model


def check(trace, model, folder):
    assert not [row for row in trace.tensors if row.kind == "unused"]
    parameters = [row for row in trace.tensors if row.kind == "parameter"]
    assert {row.provenance for row in parameters} == {"checkpoint"}
    assert {row.file for row in parameters} == {str(folder / "second" / "model.safetensors")}
