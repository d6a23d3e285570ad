"""LoRA, and all of it cast after its load: what was loaded stays what it was."""

from __future__ import annotations

from adapters import load_base, lora, make_adapter, make_base, provenances

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora())


def load(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(folder), folder / "adapter").half()


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 29}
    assert {row.dtype for row in trace.tensors if row.keys} == {"float16"}
    base, adapter = (load.id for load in trace.loads)
    assert {row.dtype for row in trace.at_return if row.keys} == {"float32"}
    for row in trace.at_return:
        assert row.load == (adapter if "lora" in row.name else base)
