"""An adapter is taken out without being merged, after another was merged: what each wrote is told."""

from __future__ import annotations

from adapters import load_base, lora, make_adapter, make_base, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(target_modules=["q_proj"]))
    make_adapter(folder, lora(target_modules=["v_proj"]), "other", seed=2)


def load(folder):
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_base(folder), folder / "adapter")
    model.load_adapter(str(folder / "other"), "other")
    model.merge_adapter(["other"])
    return model.unload()


def check(trace, model, folder):
    merged, unloaded = [span for span in trace.spans if span.phase == "surgery"]
    assert (merged.name, unloaded.name) == ("LoraModel.merge_adapter", "LoraModel.unload")
    assert (merged.attributes["merged"]["adapters"], merged.attributes["merged"]["tensors"]) == (["other"], 2)
    assert unloaded.attributes["unloaded"]["modules"] == 4
    # Only layers with that adapter were written to.
    assert {row.provenance for row in rows_of(trace, "q_proj")} == {"checkpoint"}
    assert {row.provenance for row in rows_of(trace, "v_proj")} == {"computed"}
