"""An initialisation that rewrites the base: what it takes out of the weights goes into the adapter."""

from __future__ import annotations

import transformers
from adapters import lora, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora(init_lora_weights="pissa"))


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 25, "computed": 4}
    for row in rows_of(trace, "base_layer"):
        assert (row.provenance, row.evidence, row.keys, row.file) == ("computed", "adapter", [], None)
    assert not [row for row in trace.tensors if row.kind == "unused"]
