"""A model that accelerate offloads to disk after its load."""

from __future__ import annotations

from adapters import load_base, make_base, provenances


def make(folder):
    make_base(folder)


def load(folder):
    import accelerate

    model = load_base(folder)
    accelerate.disk_offload(model, folder / "offload")
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"offloaded": 21}
    assert {row.device for row in trace.tensors if row.kind == "parameter"} == {"meta"}
