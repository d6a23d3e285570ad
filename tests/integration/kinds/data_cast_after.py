"""``parameter.data`` replaced by its own values in a wider dtype: verify finds that they are the file's."""

from __future__ import annotations

import torch
from adapters import load_base, make_base, provenances, rows_of
from safetensors.torch import load_file, save_file


def make(folder):
    make_base(folder)
    path = folder / "base" / "model.safetensors"
    save_file({key: tensor.bfloat16() for key, tensor in load_file(path).items()}, path, {"format": "pt"})


def load(folder):
    model = load_base(folder, torch_dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = parameter.data.to(torch.float32)
    return model


def check(trace, model, folder):
    from hftrace.analysis.findings.registry import findings

    assert provenances(trace) == {"checkpoint": 21}
    for row in rows_of(trace, "norm"):
        assert (row.evidence, row.dtype, row.stored_dtype) == ("verified", "float32", "bfloat16")
    # It was got as it was asked for, and cast by the caller.
    assert not [finding for finding in findings(trace) if finding.concerns == "asked"]
