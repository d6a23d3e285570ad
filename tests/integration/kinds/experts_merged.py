"""Experts in files of their own each, in two dtypes, that 5.x merges into one parameter; 4.x keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

EXPERTS = 12


def make(folder):
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=EXPERTS,
    )
    transformers.MixtralForCausalLM(config).save_pretrained(folder, max_shard_size="50KB")
    for path in Path(folder).glob("*.safetensors"):
        tensors = load_file(path)
        # One layer's experts differ in how they are stored.
        other = {key: value.bfloat16() for key, value in tensors.items() if "layers.1" in key and "w3" in key}
        save_file({**tensors, **other}, path, {"format": "pt"})


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)


def check(trace, model, folder):
    index = json.loads((Path(folder) / "model.safetensors.index.json").read_text())["weight_map"]
    merged = [row for row in trace.tensors if row.name and ".experts." in row.name]
    if transformers.__version__ < "5":
        assert {row.provenance for row in merged} == {"checkpoint"}
        assert {row.files for row in merged} == {None}
        return
    assert len(merged) == 4
    written = _written(folder)
    for row in merged:
        layer = row.name.partition(".mlp")[0]
        parts = ("w1", "w3") if "gate_up" in row.name else ("w2",)
        keys = {
            key for key in index if key.startswith(f"{layer}.") and any(f".{part}." in key for part in parts)
        }
        assert row.provenance == "converted"
        assert len(row.keys) == EXPERTS * len(parts)
        assert row.keys == [key for key in written if key in keys]
        assert row.offset is None
        files = {index[key] for key in keys}
        assert row.file == (files.pop() if len(files) == 1 else None)
        if row.file is None:
            assert set(row.files) == files
            assert sum(row.files.values()) == row.stored_bytes
        else:
            assert row.files is None
        mixed = "layers.1" in row.name and "gate_up" in row.name
        assert row.stored_dtype == (None if mixed else "float32")
        assert row.stored_bytes == sum(written[key] for key in keys)
        assert row.read_start_ns < row.read_end_ns <= row.placed_ns
    for file in trace.files:
        if file.shard is not None:
            assert file.read_bytes == sum(written[key] for key, name in index.items() if name == file.name)


def _written(folder):
    """Returns the keys in the order in which their data lies in the files, with its bytes."""
    sizes = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, "pt") as opened:
            for key in opened.offset_keys():
                sizes[key] = opened.get_tensor(key).nbytes
    return sizes
