"""OpenCLIP: a model of one's own config, with the weights of a pickle."""

from __future__ import annotations

import json

import torch

NEEDS = ("timm",)
SPARSE = True
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2},
}


def make(folder):
    import open_clip

    (folder / "small-clip.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / "small-clip.json")
    model = open_clip.create_model("small-clip", load_weights=False)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save(state, folder / "last.bin")


def load(folder):
    import open_clip

    return open_clip.create_model_and_transforms("small-clip", pretrained=str(folder / "last.bin"))


def check(trace, model, folder):
    (load,) = trace.loads
    assert (load.name, load.request["model"]) == ("small-clip", str(folder / "last.bin"))
    assert load.attributes["returned"] == "CLIP"
    stored = torch.load(folder / "last.bin")
    for row in trace.tensors:
        if row.kind == "parameter":
            assert (row.provenance, row.file) == ("checkpoint", "last.bin")
            assert row.keys == [f"module.{row.name}"]
            assert torch.equal(model.get_parameter(row.name), stored[f"module.{row.name}"])
