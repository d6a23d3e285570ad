"""Modules replaced and dropped by assignment, and one wrapped, by code that nobody hooks."""

from __future__ import annotations

import torch
from adapters import load_base, make_base, provenances, rows_of

FINDINGS = ("verify-failed",)
DIFFERENT = ("model.norm.weight", "lm_head.weight")


class Around(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner


def make(folder):
    make_base(folder)


def load(folder):
    model = load_base(folder)
    model.lm_head = torch.nn.Linear(32, 128, bias=False)
    # More than once: the last one may lie where the first one was.
    for _ in range(20):
        model.model.norm.weight = torch.nn.Parameter(torch.randn(32))
    model.model.layers = model.model.layers[:1]
    model.model.layers[0].mlp = Around(model.model.layers[0].mlp)
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 10, "unknown": 2}
    for row in (*rows_of(trace, "lm_head"), *rows_of(trace, "model.norm")):
        assert (row.provenance, row.evidence, row.verified) == ("unknown", "replaced", False)
        # What it was held against, and is not.
        assert row.keys == [row.name]
    (row,) = rows_of(trace, "mlp.inner.up_proj")
    assert row.keys == ["model.layers.0.mlp.up_proj.weight"]
    assert not [row for row in trace.tensors if row.kind == "unused"]
