"""PeftModel around a model that was loaded before, with a whole module and a second adapter."""

from __future__ import annotations

from adapters import load_base, lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(modules_to_save=["lm_head"]), "first", seed=1)
    make_adapter(folder, lora(revision="v1"), "second", seed=2)


def load(folder):
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_base(folder), folder / "first")
    model.load_adapter(str(folder / "second"), "other")
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 38}
    loads = [span.attributes["got"] for span in trace.spans if span.phase == "load" and span.parent is None]
    first, second = loads[-2:]
    assert [(each["name"], each["modules"], each["whole"]) for each in second["adapters"]] == [
        ("default", 4, ["lm_head"]),
        ("other", 4, []),
    ]
    assert first["adapters"][0]["base"] == str(folder / "base")
    assert [each["base_revision"] for each in second["adapters"]] == [None, "v1"]
    trainable, every = model.get_nb_trainable_parameters()
    assert second["trainable"] == {"parameters": trainable, "all": every}
    states = {name: each for name, each in model.named_parameters() if ".default." in name}
    assert second["adapters"][0]["parameters"] == sum(each.numel() for each in states.values())
    (row,) = rows_of(trace, "layers.0.self_attn.q_proj.base_layer")
    assert row.name == "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"
    assert (row.keys, row.file) == (["model.layers.0.self_attn.q_proj.weight"], "model.safetensors")
    (row,) = rows_of(trace, "lm_head.modules_to_save")
    assert row.keys == ["base_model.model.lm_head.weight"]
    assert row.file == str(folder / "first" / "adapter_model.safetensors")
