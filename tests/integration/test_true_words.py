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


# -- what an optimizer wrote, and what was loaded over that ------------------------------------------------


def trained(model, optimizer=None):
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model(input_ids=torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()
    optimizer.step()
    return optimizer


def holds(model, state):
    return all(torch.equal(state[name], parameter) for name, parameter in model.named_parameters())


def read(trace):
    return {row.provenance for row in last_rows(trace).values() if row.kind == "parameter"}


@pytest.mark.sparse
def test_a_checkpoint_that_is_loaded_after_training(folder, tmp_path):
    small_llama.write(tmp_path, shards="1GB")
    state = {key: value + 1 for key, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(state, tmp_path / "best.safetensors")

    def load(again):
        model = transformers.LlamaForCausalLM.from_pretrained(folder, **{DTYPE: torch.bfloat16})
        optimizer = trained(model)
        optimizer.step()
        optimizer.step()  # the third is none that is looked at
        model.load_state_dict(load_file(tmp_path / "best.safetensors"))
        if again:
            optimizer.step()
        return model

    model, trace, _ = traced(lambda: load(False))
    assert holds(model, state)
    assert read(trace) == {"checkpoint"}
    model, trace, _ = traced(lambda: load(True))
    assert not holds(model, state)
    assert read(trace) == {"computed"}


@pytest.mark.sparse
def test_training_after_a_state_dict_of_no_file(folder):
    state = {key: value + 1 for key, value in load_file(folder / "model.safetensors").items()}

    def load():
        model = transformers.LlamaForCausalLM.from_pretrained(folder, **{DTYPE: torch.bfloat16})
        model.load_state_dict({key: value.clone() for key, value in state.items()})
        trained(model)
        return model

    _, trace, _ = traced(load)
    rows = [row for row in last_rows(trace).values() if row.kind == "parameter"]
    assert {(row.provenance, row.evidence, tuple(row.keys), row.file) for row in rows} == {
        ("computed", "trained", (), None)
    }


# -- a state dict that has the model's own values ----------------------------------------------------------


@pytest.mark.sparse
@pytest.mark.parametrize("of_a_file", [False, True])
def test_values_that_a_model_is_given_back(folder, tmp_path, of_a_file):
    head = torch.randn(128, 64).bfloat16()
    save_file({"lm_head.weight": head}, tmp_path / "head.safetensors")

    def load():
        model = transformers.LlamaForCausalLM.from_pretrained(folder, **{DTYPE: torch.bfloat16})
        state = model.state_dict()
        state.update(load_file(tmp_path / "head.safetensors") if of_a_file else {"lm_head.weight": head})
        model.load_state_dict(state)
        return model

    model, trace, said = traced(load)
    stored = load_file(folder / "model.safetensors") | {"lm_head.weight": head}
    assert holds(model, stored)
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert rows.pop("lm_head.weight").provenance == ("checkpoint" if of_a_file else "state_dict")
    assert {(row.provenance, row.file) for row in rows.values()} == {("checkpoint", "model.safetensors")}
    assert "loaded-then-replaced" not in said


@pytest.mark.sparse
def test_what_was_written_before_stays_unknown(folder, tmp_path):
    save_file({"lm_head.weight": torch.randn(128, 64).bfloat16()}, tmp_path / "head.safetensors")

    def load():
        model = transformers.LlamaForCausalLM.from_pretrained(folder, **{DTYPE: torch.bfloat16})
        with torch.no_grad():
            model.model.norm.weight.add_(1)
        model.load_state_dict(model.state_dict() | load_file(tmp_path / "head.safetensors"))
        return model

    _, trace, _ = traced(load)
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert rows["model.norm.weight"].provenance == "unknown"
    assert rows["model.embed_tokens.weight"].provenance == "checkpoint"
