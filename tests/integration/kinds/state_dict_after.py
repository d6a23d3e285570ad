"""A state dict of the user's, loaded after the load."""

from __future__ import annotations

import torch
from adapters import load_base, make_base, provenances, rows_of


def make(folder):
    make_base(folder)


def load(folder):
    model = load_base(folder)
    ours = {name: torch.randn_like(value) for name, value in model.state_dict().items() if ".mlp." in name}
    model.load_state_dict(ours, strict=False)
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 15, "state_dict": 6}
    for row in rows_of(trace, ".mlp."):
        assert (row.evidence, row.keys, row.file) == ("load_state_dict", [row.name], None)
