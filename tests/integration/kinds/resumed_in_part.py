"""A part of a loaded model takes another file's tensors: the rows of one model, from two files."""

from __future__ import annotations

from adapters import load_base, make_base, provenances, rows_of
from safetensors.torch import load_file, save_file
from truth import randomize


def make(folder):
    make_base(folder)
    model = load_base(folder)
    randomize(model, 9)
    save_file(
        {name: value.clone() for name, value in model.model.state_dict().items()}, folder / "body.safetensors"
    )


def load(folder):
    model = load_base(folder)
    model.model.load_state_dict(load_file(folder / "body.safetensors"), strict=False)
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 21}
    assert {row.file for row in rows_of(trace, "layers.") if row.kind == "parameter"} == {"body.safetensors"}
    assert [row.file for row in rows_of(trace, "lm_head.weight")] == ["model.safetensors"]
