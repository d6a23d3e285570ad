"""A new adapter whose initialisation writes into the base in place, where torch does not count it."""

from __future__ import annotations

from adapters import load_base, lora, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    make_base(folder)


def load(folder):
    from peft import get_peft_model

    return get_peft_model(load_base(folder), lora(init_lora_weights="olora", modules_to_save=["lm_head"]))


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 18, "computed": 4, "initialized": 8}
    assert {row.evidence for row in rows_of(trace, "base_layer")} == {"adapter"}
    assert {row.evidence for row in rows_of(trace, "lora_A")} == {"new_adapter"}
    (row,) = rows_of(trace, "lm_head.modules_to_save")
    assert (row.provenance, row.evidence) == ("checkpoint", "copied")
