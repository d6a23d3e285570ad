"""VeRA: two matrices of the adapter's file, which every adapted layer has as a buffer of its own name."""

from __future__ import annotations

from adapters import load_base, make_adapter, make_base, rows_of

NEEDS = ("peft",)
SPARSE = True


def make(folder):
    from peft import VeraConfig

    make_base(folder)
    make_adapter(folder, VeraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))


def load(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(folder), folder / "adapter")


def check(trace, model, folder):
    for part in ("vera_A", "vera_B"):
        rows = rows_of(trace, part)
        assert [row.provenance for row in rows].count("checkpoint") == 1
        (owner,) = [row for row in rows if row.provenance == "checkpoint"]
        assert (owner.keys, owner.file) == ([f"base_model.{part}"], "adapter_model.safetensors")
        assert {row.tied_to for row in rows if row is not owner} == {owner.name}
