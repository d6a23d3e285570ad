"""A model that is cast after its training: what was trained is no longer the checkpoint's."""

from __future__ import annotations

import torch
from adapters import load_base, make_base, provenances, rows_of


def make(folder):
    make_base(folder)


def load(folder):
    model = load_base(folder)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, fused=True)
    ids = torch.arange(10)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    return model.to(torch.bfloat16)


def check(trace, model, folder):
    assert provenances(trace) == {"computed": 21}
    assert {row.evidence for row in rows_of(trace, "layers.") if row.kind == "parameter"} == {"trained"}
