"""A model that is trained and let go of, then another: what is loaded in its place is the checkpoint's."""

from __future__ import annotations

import gc

import torch
from adapters import load_base, make_base


def make(folder):
    make_base(folder)


def train(model):
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, fused=True)
    ids = torch.arange(10)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()


def load(folder):
    for _ in range(3):
        model = load_base(folder)
        train(model)
        del model
        gc.collect()
    return load_base(folder)


def check(trace, model, folder):
    last = [row for row in trace.tensors if row.kind == "parameter" and row.load == trace.loads[-1].span]
    assert len(last) == 21
    assert {row.provenance for row in last} == {"checkpoint"}
