"""Which globals of torch and transformers are others than they were."""

from __future__ import annotations

import sys
import types

import pytest

from hftrace.record.host_globals import HostGlobals


def normal_(tensor):
    return tensor


def skipped(*arguments):
    return None


@pytest.fixture
def host(monkeypatch):
    """Stand-ins for the modules, so that nothing real is touched."""
    torch, init = types.ModuleType("torch"), types.ModuleType("torch.nn.init")
    torch.get_default_dtype = lambda: torch.dtype
    torch.dtype = "float32"
    torch.linspace = normal_
    init.normal_ = normal_
    for name in ("torch", "torch.nn.init", "torch.nn.modules.module", "transformers.modeling_utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.nn.init", init)
    return types.SimpleNamespace(torch=torch, init=init)


def test_nothing_has_changed(host):
    seen = HostGlobals()
    seen.look()
    assert seen.changed() == []


def test_what_was_replaced_is_named(host):
    seen = HostGlobals()
    seen.look()
    host.init.normal_ = skipped
    host.torch.dtype = "bfloat16"
    assert seen.changed() == [
        {
            "name": "torch.nn.init.normal_",
            "before": f"{__name__}.normal_",
            "after": f"{__name__}.skipped",
        },
        {"name": "torch.get_default_dtype()", "before": "float32", "after": "bfloat16"},
    ]
    host.init.normal_, host.torch.dtype = normal_, "float32"
    assert seen.changed() == []


def test_a_module_that_comes_later_is_as_it_should_be_when_it_comes(host, monkeypatch):
    seen = HostGlobals()
    seen.look()
    modeling = types.ModuleType("transformers.modeling_utils")
    modeling._init_weights = True
    modeling.PreTrainedModel = type("PreTrainedModel", (), {"tie_weights": normal_})
    monkeypatch.setitem(sys.modules, modeling.__name__, modeling)
    seen.look()
    modeling._init_weights = False
    modeling.PreTrainedModel.tie_weights = skipped
    names = [entry["name"] for entry in seen.changed()]
    assert names == [f"{modeling.__name__}._init_weights", f"{modeling.__name__}.PreTrainedModel.tie_weights"]


def test_the_first_look_counts(host):
    seen = HostGlobals()
    seen.look()
    host.init.normal_ = skipped
    seen.look()
    assert [entry["name"] for entry in seen.changed()] == ["torch.nn.init.normal_"]


def test_a_module_whose_import_is_not_done_is_left_alone(host):
    def not_yet():
        raise RuntimeError("unsupported scalarType")

    host.torch.get_default_dtype = not_yet
    host.torch.__spec__ = types.SimpleNamespace(_initializing=True)
    seen = HostGlobals()
    seen.look()
    host.torch.__spec__ = None
    host.torch.get_default_dtype = lambda: "float32"
    seen.look()
    assert seen.changed() == []
