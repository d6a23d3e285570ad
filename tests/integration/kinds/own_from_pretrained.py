"""A class whose own ``from_pretrained`` loads one more file, and scales some of it: told apart."""

from __future__ import annotations

import torch
import transformers
from adapters import make_base, provenances, rows_of

FINDINGS = ("verify-failed",)
DIFFERENT = ("model.norm.weight",)


class Own(transformers.LlamaForCausalLM):
    @classmethod
    def from_pretrained(cls, folder, **keywords):
        model = super().from_pretrained(folder / "base", **keywords)
        model.load_state_dict(torch.load(folder / "head.bin", weights_only=True), strict=False)
        with torch.no_grad():
            model.model.norm.weight.mul_(2)
        return model


def make(folder):
    make_base(folder)
    torch.save({"lm_head.weight": torch.randn(128, 32)}, folder / "head.bin")


def load(folder):
    return Own.from_pretrained(folder)


def check(trace, model, folder):
    assert len(trace.loads) == 1
    assert provenances(trace) == {"checkpoint": 20, "unknown": 1}
    (head,) = rows_of(trace, "lm_head")
    assert (head.provenance, head.keys, head.file) == ("checkpoint", ["lm_head.weight"], "head.bin")
    (norm,) = rows_of(trace, "model.norm.weight")
    assert norm.provenance == "unknown"
