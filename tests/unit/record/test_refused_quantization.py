"""A quantisation that cannot be had is refused before a model is imported."""

from __future__ import annotations

import json
import sys
import types

import pytest

from hftrace.record.child import quantization
from hftrace.record.child.quantization import (
    QuantizationError,
    as_object,
    check_installed,
    check_possible,
)

BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def test_what_is_not_installed_is_named_and_not_imported(monkeypatch):
    asked = []
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: asked.append(name))
    with pytest.raises(
        QuantizationError, match="bitsandbytes is not installed here: pip install bitsandbytes"
    ):
        check_installed(BNB)
    with pytest.raises(QuantizationError, match="pip install optimum-quanto"):
        check_installed({"quant_method": "quanto"})
    assert asked == ["bitsandbytes", "optimum.quanto"]


@pytest.mark.parametrize(
    "given", [None, "text", {}, {"quant_method": "of somebody else"}, {"quant_method": "fp8"}]
)
def test_of_what_is_not_known_transformers_says_it(given):
    check_installed(given)


def checkpoint(folder, method=None):
    config = {"model_type": "llama"} | (
        {} if method is None else {"quantization_config": {"quant_method": method}}
    )
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture
def no_device(monkeypatch):
    monkeypatch.setattr(quantization, "_has_device", lambda: False)


@pytest.mark.parametrize("method", ["fp8", "mxfp4"])
def test_what_takes_a_gpu_is_refused_without_one(tmp_path, method, no_device, monkeypatch):
    names = ("FineGrainedFP8Config", "Mxfp4Config")
    monkeypatch.setitem(
        sys.modules, "transformers", types.SimpleNamespace(__version__="9", **dict.fromkeys(names, object))
    )
    with pytest.raises(QuantizationError, match="quantises on a GPU, and there is none here"):
        check_possible({"quant_method": method}, checkpoint(tmp_path))
    check_possible({"quant_method": method}, checkpoint(tmp_path, method))
    check_possible({"quant_method": method}, "somebody/something")  # its config is not here yet


def test_what_only_reads_is_refused_where_nothing_is_stored_so(tmp_path):
    asked = {"quant_method": "compressed-tensors"}
    with pytest.raises(QuantizationError, match="is not quantised"):
        check_possible(asked, checkpoint(tmp_path))
    with pytest.raises(QuantizationError, match="is stored in fp8"):
        check_possible(asked, checkpoint(tmp_path, "fp8"))
    check_possible(asked, checkpoint(tmp_path, "compressed-tensors"))


def test_a_version_without_the_method_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(__version__="4.36.2"))
    with pytest.raises(QuantizationError, match=r"transformers 4\.36\.2 has no QuantoConfig: upgrade it"):
        check_possible({"quant_method": "quanto"}, checkpoint(tmp_path))


def test_torchao_is_given_an_object(monkeypatch):
    class Int8WeightOnlyConfig:
        def __init__(self, group_size=None):
            self.group_size = group_size

    made = types.SimpleNamespace(Int8WeightOnlyConfig=Int8WeightOnlyConfig)
    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.quantization", made)
    monkeypatch.setitem(
        sys.modules,
        "transformers",
        types.SimpleNamespace(TorchAoConfig=lambda *given, **named: (given, named)),
    )
    asked = {"quant_method": "torchao", "quant_type": "int8_weight_only", "group_size": 32}
    (given, named) = as_object(asked)
    assert (type(given[0]), given[0].group_size, named) == (Int8WeightOnlyConfig, 32, {})
    assert as_object({**asked, "quant_type": "older"}) == (("older",), {"group_size": 32})
    with pytest.raises(QuantizationError, match="torchao: "):
        as_object({**asked, "nonsense": 1})
    assert as_object(BNB) is BNB
