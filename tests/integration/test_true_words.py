"""Programs of which something was said that was not so, each held against the model that it has made."""

from __future__ import annotations

import pytest
import small_llama
import torch
import transformers
from safetensors.torch import load_file, load_model, save_file

import hftrace
from hftrace.analysis.findings.registry import findings

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

DTYPE = "torch_dtype" if transformers.__version__ < "4.56" else "dtype"


def traced(load):
    """Returns what a function has made, its trace, and the findings by name."""
    with hftrace.trace(None, sample_hz=0) as recorded:
        result = load()
    assert not recorded.trace.header["errors"]
    return result, recorded.trace, {finding.name: finding for finding in findings(recorded.trace)}


def last_rows(trace):
    """Returns the rows of the last load's model by name."""
    load = max(row.load for row in trace.tensors)
    return {row.name: row for row in trace.tensors if row.load == load and row.kind != "unused"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("small")
    small_llama.write(place, shards="1GB")
    return place


# -- whoever loads by the model's own names tries no prefix -----------------------------------------------


def by_state_dict(model, path):
    model.load_state_dict(load_file(path), strict=False)


def by_load_model(model, path):
    load_model(model, path, strict=False)


def by_accelerate(model, path):
    from accelerate import load_checkpoint_in_model

    load_checkpoint_in_model(model, str(path))


@pytest.mark.parametrize("put", [by_state_dict, by_load_model, by_accelerate])
@pytest.mark.parametrize("too_many", [False, True])
def test_a_file_whose_names_differ_by_the_prefix_of_the_base(tmp_path, put, too_many):
    base, whole = transformers.LlamaModel, transformers.LlamaForCausalLM
    saved, made = (whole, base) if too_many else (base, whole)
    path = tmp_path / "model.safetensors"
    save_file(
        {key: torch.randn_like(value) for key, value in saved(small_llama.config()).state_dict().items()},
        path,
    )
    model = made(small_llama.config())
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    _, trace, said = traced(lambda: put(model, path))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    rows = last_rows(trace)
    assert rows.keys() >= before.keys()
    assert not any(rows[name].keys or rows[name].provenance == "checkpoint" for name in before)
    assert "prefix" in said["one-prefix"].title
