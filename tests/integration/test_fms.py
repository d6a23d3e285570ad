"""``fms.models.get_model`` is a load, by a stand-in with the functions of ibm-fms 1.13.1 that are hooked."""

from __future__ import annotations

import sys

import pytest

import hftrace
from hftrace.analysis.findings.registry import findings

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.once

MODELS = """
import torch
from fms.utils import serialization

class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

def _get_model_instance(architecture, variant, *, dtype=None, device=None, extra_args={}):
    with torch.device("meta"):
        return Plain()

def get_model(architecture, variant=None, model_path=None, source=None, device_type="cpu", **kwargs):
    found = serialization.load_state_dict(model_path, source=source) if model_path else {}
    model = _get_model_instance(architecture, variant)
    model.to_empty(device="cpu")
    if found:
        serialization.load_state_dict_into_model(model=model, state_dict=found, architecture=architecture)
    return model
"""
SERIALIZATION = """
from collections import ChainMap
from pathlib import Path
import torch
from safetensors import safe_open

def _load_safetensors_state_dict(checkpoint, device):
    with safe_open(checkpoint, framework="pt", device=str(device)) as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}

def load_state_dict(model_path, *, source=None):
    files = Path(model_path).glob("*.safetensors")
    return ChainMap(*[_load_safetensors_state_dict(each, "cpu") for each in files])

def load_state_dict_into_model(model, state_dict, architecture, **others):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state_dict[name])
"""


@pytest.fixture
def fms(tmp_path, monkeypatch):
    for name, text in (("models", MODELS), ("utils", "")):
        (tmp_path / "fms" / name).mkdir(parents=True)
        (tmp_path / "fms" / name / "__init__.py").write_text(text)
    (tmp_path / "fms" / "__init__.py").write_text("")
    (tmp_path / "fms" / "utils" / "serialization.py").write_text(SERIALIZATION)
    monkeypatch.syspath_prepend(str(tmp_path))
    import fms.models

    yield fms.models
    for name in [name for name in sys.modules if name.partition(".")[0] == "fms"]:
        del sys.modules[name]


def test_a_plain_module_is_told_with_its_files_and_no_more_than_was_seen(tmp_path, fms):
    from safetensors.torch import save_file

    weights = tmp_path / "weights"
    weights.mkdir()
    save_file({"inner.weight": torch.ones(4, 4), "inner.bias": torch.ones(4)}, weights / "model.safetensors")
    with hftrace.trace(sample_hz=0) as recorded:
        at_random = fms.get_model("llama", "micro")
        loaded = fms.get_model("llama", "micro", model_path=str(weights))
    trace = recorded.trace
    assert not trace.header.errors
    assert at_random is not loaded
    (load,) = trace.loads
    assert (load.name, load.request["model"], load.status) == ("fms.get_model", str(weights), "ok")
    assert {(row.name, row.provenance) for row in trace.tensors} == {
        ("inner.weight", "unknown"),
        ("inner.bias", "unknown"),
    }
    assert [(file.name, file.size_bytes) for file in trace.files] == [
        ("model.safetensors", (weights / "model.safetensors").stat().st_size)
    ]
    assert [finding.rule for finding in findings(trace) if finding.concerns in ("asked", "weights")] == [
        "R29"
    ]
