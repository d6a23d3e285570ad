"""The base model's own prefix stands in the names twice: nothing fits, and no shape is to blame."""

from __future__ import annotations

from adapters import load_base, make_base
from safetensors.torch import load_file, save_file

VERSIONS = "<5"  # which finds the names all the same
WARNED = ("one-prefix",)


def make(folder):
    make_base(folder)
    path = folder / "base" / "model.safetensors"
    save_file({f"model.{key}": tensor for key, tensor in load_file(path).items()}, path, {"format": "pt"})


def load(folder):
    return load_base(folder)


def check(trace, model, folder):
    from hftrace.analysis.findings.registry import findings

    assert [finding.name for finding in findings(trace) if finding.concerns == "weights"] == ["one-prefix"]
    assert {row.stored_shape is None for row in trace.tensors if row.kind == "parameter"} == {True}
