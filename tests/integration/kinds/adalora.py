"""AdaLoRA: what its layers count with is in no adapter's file, and is no weight that is missing."""

from __future__ import annotations

from adapters import TARGETS, load_base, make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    from peft import AdaLoraConfig

    make_base(folder)
    settings = {"init_r": 4, "target_r": 2, "total_step": 10, "target_modules": list(TARGETS)}
    make_adapter(folder, AdaLoraConfig(task_type="CAUSAL_LM", **settings))


def load(folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(load_base(folder), folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 21 + 12, "initialized": 4}
    assert {row.evidence for row in rows_of(trace, "ranknum")} == {"expected"}
