"""An adapter merged into the weights: they are no longer the checkpoint's, all others are."""

from __future__ import annotations

from adapters import load_base, lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(modules_to_save=["lm_head"]))


def load(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(folder), folder / "adapter").merge_and_unload()


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 17, "computed": 4}
    for row in rows_of(trace, "q_proj"):
        assert (row.provenance, row.evidence, row.file) == ("computed", "merged", "model.safetensors")
    (row,) = rows_of(trace, "lm_head")
    assert (row.keys, row.file) == (["base_model.model.lm_head.weight"], "adapter_model.safetensors")
    (span,) = [span for span in trace.spans if span.phase == "surgery"]
    assert span.parent is None
    assert span.name == "LoraModel.merge_and_unload"
    # The whole copy of the head takes its place, and is merged into nothing.
    size = sum(row.bytes for row in rows_of(trace, "q_proj") + rows_of(trace, "v_proj"))
    merged = {"adapters": ["default"], "modules": 4, "tensors": 4, "bytes": size}
    assert span.attributes["merged"] == merged
