"""A model that is trained after its load, by a fused optimizer, which raises no version counter."""

from __future__ import annotations

import torch
from adapters import load_base, make_base, provenances, rows_of


def make(folder):
    make_base(folder)


def load(folder):
    model = load_base(folder)
    model.model.embed_tokens.requires_grad_(False)
    _train(model)
    return model


def _train(model):
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], 1e-2, fused=True
    )
    ids = torch.arange(10)[None]
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def check(trace, model, folder):
    assert provenances(trace) == {"computed": 20, "checkpoint": 1}
    assert {row.evidence for row in rows_of(trace, "layers.") if row.kind == "parameter"} == {"trained"}
    assert [row.provenance for row in rows_of(trace, "embed_tokens")] == ["checkpoint"]
