"""A LoRA adapter that trained a whole module: the model's own stays beside the adapter's."""

from __future__ import annotations

import transformers
from adapters import lora, make_adapter, make_base, provenances, rows_of
from packaging.version import Version

NEEDS = ("peft",)
# There transformers looks for the adapter's module by a name that it does not have.
LEFT_OUT = Version("5") <= Version(transformers.__version__) < Version("5.20")
FINDINGS = {"unused-keys"} if LEFT_OUT else set()


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(modules_to_save=["lm_head"]))


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 30}
    (row,) = rows_of(trace, "lm_head.original_module")
    assert (row.keys, row.file) == (["lm_head.weight"], "model.safetensors")
    (row,) = rows_of(trace, "lm_head.modules_to_save")
    if LEFT_OUT:
        assert (row.keys, row.file, row.evidence) == (["lm_head.weight"], "model.safetensors", "copied")
        (unused,) = [row for row in trace.tensors if row.kind == "unused"]
        assert unused.keys == ["base_model.model.lm_head.weight"]
    else:
        assert (row.keys, row.file) == (["base_model.model.lm_head.weight"], "adapter_model.safetensors")
