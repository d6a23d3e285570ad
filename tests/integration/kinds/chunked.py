"""One key that 5.24 makes two parameters of: each has its share of the key's bytes."""

from __future__ import annotations

import transformers
from safetensors import safe_open

VERSIONS = ">=5.24"


def make(folder):
    config = transformers.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=28,
        use_swiglu_ffn=True,
    )
    transformers.Dinov2Model(config).save_pretrained(folder)


def load(folder):
    return transformers.AutoModel.from_pretrained(folder)


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors}
    with safe_open(folder / "model.safetensors", "pt") as opened:
        (key,) = (key for key in opened.keys() if ".1." in key and key.endswith("weights_in.weight"))  # noqa: SIM118 (no dictionary)
        size = opened.get_tensor(key).nbytes
    gate, up = (
        next(
            row
            for name, row in rows.items()
            if name and ".1." in name and name.endswith(f"{part}_proj.weight")
        )
        for part in ("gate", "up")
    )
    assert gate.keys == up.keys == [key]
    assert gate.provenance == up.provenance == "converted"
    assert gate.stored_bytes == up.stored_bytes == size // 2
    assert gate.offset == up.offset is not None
    (file,) = (file for file in trace.files if file.shard is not None)
    assert file.read_bytes <= file.size_bytes
