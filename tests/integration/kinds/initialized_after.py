"""Layers initialised again after the load, and one written in place: none is the checkpoint's any more."""

from __future__ import annotations

import transformers
from adapters import load_base, make_base, rows_of

# From 5.0 on _init_weights leaves alone what was loaded.
AGAIN = int(transformers.__version__.partition(".")[0]) < 5
FINDINGS = ("verify-failed", *(("initialized-after-load",) if AGAIN else ()))
DIFFERENT = ("lm_head.weight",)


def make(folder):
    make_base(folder)


def load(folder):
    model = load_base(folder)
    model.lm_head.reset_parameters()
    model.model.layers[1].apply(model._init_weights)
    return model


def check(trace, model, folder):
    (row,) = rows_of(trace, "lm_head")
    assert (row.provenance, row.evidence) == ("unknown", "written_in_place")
    (row,) = rows_of(trace, "layers.1.mlp.up_proj")
    assert row.provenance == ("initialized" if AGAIN else "checkpoint")
    for row in rows_of(trace, "layers.0."):
        # Up to 4.47 each layer has rotary buffers of its own.
        assert row.provenance == ("checkpoint" if row.kind == "parameter" else "computed")
