"""What a finished model says of itself, and whether its code is the folder's."""

from __future__ import annotations

import copy
import importlib.util
import sys
import types

import pytest

from hftrace.record.got import got_of
from hftrace.record.held import Held
from hftrace.record.remote_code import foreign_files

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class TextConfig(transformers.PretrainedConfig):
    model_type = "got_text"


class VisionConfig(transformers.PretrainedConfig):
    model_type = "got_vision"


class WholeConfig(transformers.PretrainedConfig):
    model_type = "got_whole"


def composite():
    config = WholeConfig()
    config.text_config, config.vision_config = TextConfig(), VisionConfig()
    vars(config.text_config)["dtype"] = torch.bfloat16
    return config


class Part(torch.nn.Module):
    _load_pretrained_model = None

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.linear = torch.nn.Linear(2, 2)


class Whole(torch.nn.Module):
    _keep_in_fp32_modules = ("wo",)
    _keep_in_fp32_modules_strict = frozenset({"gate"})

    def __init__(self):
        super().__init__()
        self.config = composite()
        self.model = torch.nn.Module()
        self.model.text = Part(copy.deepcopy(self.config.text_config))
        self.model.vision = Part(self.config.vision_config)
        self.model.other = Part(TextConfig())
        self.model.other.config.model_type = "stranger"
        self.hf_device_map = {"": torch.device("cpu")}


def test_a_composite_model():
    found = got_of(Held(Whole()))
    assert (found["class"], found["classes"]) == ("Whole", ["Whole"])
    assert found["sub_configs"] == ["text_config", "vision_config"]
    parts = {part["prefix"]: part for part in found["parts"]}
    assert {prefix: part["config"] for prefix, part in parts.items()} == {
        "model.text": "text_config",
        "model.vision": "vision_config",
    }
    assert parts["model.text"]["dtype"] == "bfloat16"
    assert found["kept_in_float32"] == ["gate", "wo"]
    assert found["device_map"] == {"": "cpu"}
    assert (found["source"], found["module"]) == (__file__, __name__)


def test_two_parts_of_one_kind_are_not_told_apart():
    model = Whole()
    model.config.second_config = TextConfig()
    model.model.text.config = copy.deepcopy(model.config.text_config)
    assert {part["config"] for part in got_of(Held(model))["parts"]} == {"vision_config"}


def test_a_config_that_raises_costs_its_own_facts_alone():
    class Hostile:
        @property
        def _attn_implementation(self):
            raise RuntimeError("no")

    model = torch.nn.Linear(2, 2)
    model.config = Hostile()
    found = got_of(Held(model))
    assert found["class"] == "Linear"
    assert "attn_implementation" not in found
    assert got_of(Held(torch.nn.Linear(1, 1)))["class"] == "Linear"


def test_no_warning_and_no_new_attribute(recwarn):
    model = Whole()
    before = {name: dict(vars(config)) for name, config in _configs(model).items()}
    got_of(Held(model))
    assert {name: dict(vars(config)) for name, config in _configs(model).items()} == before
    assert not recwarn.list


def _configs(model):
    return {"whole": model.config, "text": model.config.text_config, "vision": model.config.vision_config}


CODE = """
import functools

def helper():
    return [{number} for _ in range(2)]

class Model:
    def __init__(self):
        self.size = {number}

    @classmethod
    def make(cls):
        return (lambda: cls())()
"""


@pytest.fixture
def imported(tmp_path):
    """Returns a class of a module that came with a checkpoint, and the folder that it was copied from."""
    package = "transformers_modules.hftrace_test"
    name = f"{package}.modeling_toy"
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "modeling_toy.py").write_text(CODE.format(number=1))
    kept = tmp_path / "modeling_toy.py"
    kept.write_text(CODE.format(number=1))
    spec = importlib.util.spec_from_file_location(name, kept)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module.Model, folder
    del sys.modules[name]


def test_code_of_the_folder_and_code_of_another(imported):
    model_class, folder = imported
    assert foreign_files(model_class, str(folder)) == []
    (folder / "modeling_toy.py").write_text(CODE.format(number=2))
    assert foreign_files(model_class, str(folder)) == ["modeling_toy.py"]
    assert foreign_files(model_class, "org/repository") == []
    assert foreign_files(torch.nn.Linear, str(folder)) == []


def test_parameters_that_deepspeed_has_taken_apart(monkeypatch):
    model = torch.nn.Linear(2, 2)
    assert "partitioned_by" not in got_of(Held(model))
    monkeypatch.setitem(sys.modules, "deepspeed", types.ModuleType("deepspeed"))
    assert "partitioned_by" not in got_of(Held(model))
    model.weight.ds_id = 0
    assert got_of(Held(model))["partitioned_by"] == "DeepSpeed ZeRO-3"
