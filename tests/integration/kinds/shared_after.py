"""A layer that is in the model once more after its load: one tensor under two names counts once."""

from __future__ import annotations

from adapters import load_base, make_base, provenances

from hftrace.analysis.time.weights import weight_bytes


def make(folder):
    make_base(folder)


def load(folder):
    model = load_base(folder)
    model.model.layers.append(model.model.layers[1])
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 21, "tied": 9}
    for row in trace.tensors:
        if row.provenance == "tied":
            assert row.tied_to == row.name.replace("layers.2", "layers.1")
            assert (row.keys, row.file, row.stored_bytes) == ([], None, None)
    moved = weight_bytes(trace)
    stored = sum(row.stored_bytes for row in trace.at_return if row.keys)
    assert moved.read + moved.mapped + moved.unknown == stored
