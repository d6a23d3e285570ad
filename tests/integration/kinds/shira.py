"""SHiRA: the places of its sparse values are in the adapter's file, and in no tensor of a module."""

from __future__ import annotations

from adapters import load_base, make_adapter, make_base, rows_of

NEEDS = ("peft",)
SPARSE = True


def make(folder):
    from peft import ShiraConfig

    make_base(folder)
    make_adapter(folder, ShiraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))


def load(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(folder), folder / "adapter")


def check(trace, model, folder):
    assert {row.provenance for row in rows_of(trace, "shira_weight")} == {"checkpoint"}
    apart = [row for row in trace.tensors if row.kind == "unused"]
    found = {(key.rpartition(".")[2], row.evidence) for row in apart for key in row.keys}
    assert found == {("shira_indices", "adapter_code")}
