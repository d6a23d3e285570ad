"""An adapter for a model from before the trace: of the base nothing is known, of the adapter all."""

from __future__ import annotations

from adapters import load_base, lora, make_adapter, make_base, provenances, rows_of

MODELS = []

NEEDS = ("peft",)


def make(folder):
    make_base(folder)
    make_adapter(folder, lora())
    MODELS.append(load_base(folder))


def load(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(MODELS.pop(), folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 8, "unknown": 21}
    assert {row.evidence for row in rows_of(trace, "base_layer")} == {"before_trace"}
