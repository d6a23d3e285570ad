"""timm: a model by its name, with weights of a file and another head than these have."""

from __future__ import annotations

NEEDS = ("timm",)
SPARSE = True
PRINTED = False
FINDINGS = {"unused-keys", "unknown-weights"}


def make(folder):
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("test_resnet", num_classes=4).state_dict(), folder / "weights.safetensors")


def load(folder):
    import timm

    weights = {"file": str(folder / "weights.safetensors"), "num_classes": 4}
    timm.create_model("test_resnet")  # without weights: no load
    return timm.create_model("test_resnet", pretrained=True, pretrained_cfg_overlay=weights, num_classes=7)


def check(trace, model, folder):
    (load,) = trace.loads
    assert (load.name, load.request["model"]) == ("test_resnet", str(folder / "weights.safetensors"))
    assert load.attributes["returned"] == "ResNet"
    rows = {row.name: row.provenance for row in trace.tensors if row.name}
    assert {name for name, word in rows.items() if word != "checkpoint"} == {"fc.weight", "fc.bias"}
    assert rows["fc.weight"] == rows["fc.bias"] == "unknown"
    assert {row.keys[0] for row in trace.tensors if row.kind == "unused"} == {"fc.weight", "fc.bias"}
    assert "load_pretrained" in {span.name for span in trace.spans if span.parent == load.span}
