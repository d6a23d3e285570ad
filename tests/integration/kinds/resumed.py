"""A training's checkpoint that is read and handed to a loaded model, as a trainer does when it resumes."""

from __future__ import annotations

from adapters import load_base, make_base, provenances
from safetensors.torch import load_file, save_file
from truth import randomize


def make(folder):
    make_base(folder)
    model = load_base(folder)
    randomize(model, 9)
    save_file(
        {name: value.clone() for name, value in model.state_dict().items()}, folder / "resumed.safetensors"
    )


def load(folder):
    model = load_base(folder)
    model.load_state_dict(load_file(folder / "resumed.safetensors"), strict=False)
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 21}
    assert {row.file for row in trace.tensors if row.kind == "parameter"} == {"resumed.safetensors"}
