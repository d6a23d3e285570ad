"""IA3: vectors and no matrices."""

from __future__ import annotations

import transformers
from adapters import make_adapter, make_base, provenances, rows_of

NEEDS = ("peft",)


def make(folder):
    from peft import IA3Config

    make_base(folder)
    targets = ["q_proj", "v_proj", "down_proj"]
    config = IA3Config(target_modules=targets, feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
    make_adapter(folder, config)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "adapter")


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 27}
    assert {row.file for row in rows_of(trace, "ia3_l")} == {"adapter_model.safetensors"}
