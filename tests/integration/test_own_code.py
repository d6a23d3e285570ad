"""A model's own code: its files and revision, classes that were registered, hooks that were not called."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.findings.registry import findings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])

_spec = importlib.util.spec_from_file_location(
    "hftrace_tests_code_hub", Path(__file__).parents[1] / "hub_server.py"
)
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)
Hub = _module.Hub

CONFIGURATION = """
from transformers import PretrainedConfig

class PartsConfig(PretrainedConfig):
    model_type = "hftrace_own_parts"
    def __init__(self, size=4, **more):
        self.size = size
        super().__init__(**more)
"""
HELPER = "def scale():\n    return 2\n"
MODELING = """
import torch
from transformers import PreTrainedModel
from .configuration_parts import PartsConfig
from .helper_parts import scale

class PartsModel(PreTrainedModel):
    config_class = PartsConfig
    def __init__(self, config):
        super().__init__(config)
        self.linear = torch.nn.Linear(config.size, config.size)
        self.post_init()
    def _init_weights(self, module):
        pass
"""
FILES = {"configuration_parts.py": CONFIGURATION, "helper_parts.py": HELPER, "modeling_parts.py": MODELING}


def write(folder, refers_to=""):
    """Writes a checkpoint with code of its own, or with that of another repository."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    for name, text in FILES.items() if not refers_to else ():
        (folder / name).write_text(text)
    of = f"{refers_to}--" if refers_to else ""
    names = {"AutoConfig": "configuration_parts.PartsConfig", "AutoModel": "modeling_parts.PartsModel"}
    config = {
        "model_type": "hftrace_own_parts",
        "architectures": ["PartsModel"],
        "auto_map": {auto: of + name for auto, name in names.items()},
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"linear.weight": torch.arange(16.0).reshape(4, 4), "linear.bias": torch.arange(4.0)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


SCRIPT = """
import sys, hftrace, transformers
own, other, local, out = sys.argv[1:]
LOADS = (
    ("AutoModel", "org/own-code", {}),
    ("AutoModel", "org/own-code", {"revision": "main"}),
    ("AutoModel", "org/own-code", {"revision": own}),
    ("AutoModel", "org/own-code", {"code_revision": own}),
    ("AutoConfig", "org/own-code", {}),
    ("AutoModel", "org/refers", {"revision": own}),
    ("AutoModel", "org/refers", {"code_revision": other}),
    ("AutoModel", local, {}),
)
with hftrace.trace(out, sample_hz=0):
    for auto, model, keywords in LOADS:
        try:
            getattr(transformers, auto).from_pretrained(model, trust_remote_code=True, **keywords)
        except OSError:
            pass  # there is no such commit of the weights
"""


@pytest.mark.client
def test_code_from_the_hub_is_told_with_its_commit_and_whether_it_was_pinned(tmp_path, run_python):
    repositories = tmp_path / "repositories"
    write(repositories / "org" / "own-code")
    write(repositories / "other" / "the-code")
    write(repositories / "org" / "refers", "other/the-code")
    local = tmp_path / "local"
    write(local)
    own, other = Hub.commit("org/own-code"), Hub.commit("other/the-code")
    with Hub(repositories, lifetime=200) as hub:
        done = run_python(
            "-c",
            SCRIPT,
            own,
            other,
            local,
            "trace.json",
            env={**hub.variables, "HF_HOME": str(tmp_path / "home")},
        )
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(tmp_path / "trace.json")
    assert not trace.header.errors
    loads = {load.span: number for number, load in enumerate(trace.loads)}
    loose = {loads[each.load]: each for each in findings(trace) if each.rule == "R52"}
    status = {loads[load.span]: load.status for load in trace.loads}
    # A load that failed, for want of that commit, has found no code.
    assert set(loose) == {0, 1, 4} | ({5} if status[5] == "ok" else set())
    assert f'revision="{own}"' in loose[0].advice
    assert "revision='main' given" in loose[1].evidence
    spans = {span.id: span for span in trace.spans}
    code = {loads[span]: spans[span].attributes.get("code", []) for span in loads}
    for number in (0, 1, 2, 3):
        files = {entry["file"]: entry for entry in code[number]}
        assert set(files) == set(FILES)
        for name, entry in files.items():
            assert entry["sha256"] == hashlib.sha256(FILES[name].encode()).hexdigest()
            assert (entry["repo"], entry["commit"]) == ("org/own-code", own)
    assert [entry["file"] for entry in code[4]] == ["configuration_parts.py"]
    assert {(entry["repo"], entry["commit"]) for entry in code[6]} == {("other/the-code", other)}
    assert {(entry["repo"], entry["commit"]) for entry in code[7]} == {(str(local), None)}


class OwnConfig(transformers.PretrainedConfig):
    model_type = "hftrace_own_parts"

    def __init__(self, size=4, **more):
        self.size = size
        super().__init__(**more)


CALLED = []


def _pre(*arguments):
    CALLED.append("pre")


class Block(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.inner = torch.nn.Linear(size, size)
        self._register_load_state_dict_pre_hook(_pre)

    def forward(self, values):
        return self.inner(values)


class OwnModel(transformers.PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.linear = torch.nn.Linear(config.size, config.size)
        self.block = Block(config.size)
        self.post_init()

    def _init_weights(self, module):
        pass


@pytest.fixture
def registered():
    transformers.AutoConfig.register("hftrace_own_parts", OwnConfig)
    transformers.AutoModel.register(OwnConfig, OwnModel)
    yield
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    del CONFIG_MAPPING._extra_content["hftrace_own_parts"]
    del transformers.AutoModel._model_mapping._extra_content[OwnConfig]


def test_a_registered_class_is_told_and_one_that_stands_before_the_folders_own(
    tmp_path, registered, monkeypatch
):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    write(tmp_path / "model")
    with hftrace.trace(sample_hz=0) as recorded:
        model = transformers.AutoModel.from_pretrained(tmp_path / "model", trust_remote_code=True)
        transformers.AutoModel.from_pretrained(tmp_path / "model", trust_remote_code=False)
    trace = recorded.trace
    assert not trace.header.errors
    spans = {span.id: span for span in trace.spans}
    first, second = (spans[load.span].attributes for load in trace.loads)
    assert second["got"]["registered"] == {
        "model_type": "hftrace_own_parts",
        "config": "OwnConfig",
        "class": "OwnModel",
        "auto_class": "AutoModel",
    }
    assert second["got"]["source"] == __file__
    assert "code" not in second
    said = [finding for finding in findings(trace) if finding.rule == "R37"]
    # Before 5.x, trust_remote_code=True means the checkpoint's own code, whatever is registered.
    if type(model) is OwnModel:
        (said,) = said
        assert said.load == trace.loads[0].span
        assert "names modeling_parts.PartsModel" in said.evidence
        assert "AutoModel.register" in said.evidence
    else:
        assert said == []
        assert {entry["file"] for entry in first["code"]} == set(FILES)


@pytest.mark.parametrize("keywords", [{}, {"device_map": "cpu"}], ids=["plain", "mapped"])
def test_hooks_of_load_state_dict_that_were_not_called(tmp_path, keywords):
    OwnModel(OwnConfig()).save_pretrained(tmp_path)
    CALLED.clear()
    with hftrace.trace(sample_hz=0) as recorded:
        OwnModel.from_pretrained(tmp_path, **keywords)
    said = [finding for finding in findings(recorded.trace) if finding.rule == "R53"]
    # The hook is one of a module that has no tensors of its own.
    assert bool(said) == (not CALLED)
    for finding in said:
        assert "_pre (test_own_code.py:" in finding.evidence
        assert "of block" in finding.evidence
        assert finding.concerns == "code"


def test_a_hook_of_torch_itself_is_nobodys_finding(tmp_path):
    model = OwnModel(OwnConfig())
    model.linear = torch.nn.utils.parametrizations.weight_norm(model.linear)
    from hftrace.record.held import Held
    from hftrace.record.load_hooks import load_hooks

    assert [hook["module"] for hook in load_hooks(Held(model))] == ["block"]
    assert load_hooks(Held(model))[0]["own_tensors"] is False


class Renaming(OwnModel):
    def __init__(self, config):
        super().__init__(config)
        self._register_load_state_dict_pre_hook(self._rename)

    def _rename(self, state_dict, prefix, *others):
        CALLED.append("rename")
        if f"{prefix}linear.kernel" in state_dict:
            state_dict[f"{prefix}linear.weight"] = state_dict.pop(f"{prefix}linear.kernel")


def test_a_hook_that_was_to_rename_keys_is_about_weights(tmp_path):
    from safetensors.torch import load_file, save_file

    Renaming(OwnConfig()).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["linear.kernel"] = tensors.pop("linear.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    CALLED.clear()
    with hftrace.trace(sample_hz=0) as recorded:
        Renaming.from_pretrained(tmp_path)
    said = {finding.name: finding for finding in findings(recorded.trace)}
    assert ("uncalled-hooks" in said) == ("rename" not in CALLED)
    if "uncalled-hooks" in said:
        assert said["uncalled-hooks"].concerns == "weights"
        # Its class initialises nothing.
        assert {"uninitialized-weights", "unused-keys"} <= set(said)
        assert "_rename (test_own_code.py:" in said["uncalled-hooks"].evidence
