"""Keys of base and adapter that a ``key_mapping`` renames: rows name the files' own keys."""

from __future__ import annotations

from adapters import load_base, lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)
VERSIONS = ">=4.57"


def make(folder):
    from safetensors.torch import load_file, save_file

    make_base(folder)
    make_adapter(folder, lora())
    for path in (folder / "base" / "model.safetensors", folder / "adapter" / "adapter_model.safetensors"):
        tensors = {
            key.replace("model.layers", "model.blocks"): value for key, value in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})


def load(folder):
    from peft import PeftModel

    base = load_base(folder, key_mapping={r"^model\.blocks": "model.layers"})
    return PeftModel.from_pretrained(base, folder / "adapter", key_mapping={"model.blocks": "model.layers"})


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 29}
    (row,) = rows_of(trace, "layers.0.self_attn.q_proj.base_layer")
    assert row.keys == ["model.blocks.0.self_attn.q_proj.weight"]
    (row,) = rows_of(trace, "layers.0.self_attn.q_proj.lora_A")
    assert row.keys == ["base_model.model.model.blocks.0.self_attn.q_proj.lora_A.weight"]
