"""Two folders with code of their own and one last name: what the first brought runs in the second."""

import json

import torch
from safetensors.torch import save_file
from transformers import AutoModel

from hftrace.analysis.findings.registry import findings

CONFIGURATION = """
from transformers import PretrainedConfig


class PartsConfig(PretrainedConfig):
    model_type = "hftrace_parts"

    def __init__(self, size=4, **more):
        self.size = size
        super().__init__(**more)
"""
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

    def forward(self, values):
        return self.linear(values) * scale()
"""
WARNED = ("foreign-code",)


def _write(folder, scale):
    folder.mkdir(parents=True)
    (folder / "configuration_parts.py").write_text(CONFIGURATION)
    (folder / "helper_parts.py").write_text(f"def scale():\n    return {scale}\n")
    (folder / "modeling_parts.py").write_text(MODELING)
    config = {
        "model_type": "hftrace_parts",
        "architectures": ["PartsModel"],
        "auto_map": {
            "AutoConfig": "configuration_parts.PartsConfig",
            "AutoModel": "modeling_parts.PartsModel",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"linear.weight": torch.arange(16.0).reshape(4, 4), "linear.bias": torch.arange(4.0)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def make(folder):
    _write(folder / "first" / "model", 1)
    _write(folder / "second" / "model", 100)
    AutoModel.from_pretrained(folder / "first" / "model", trust_remote_code=True)


def load(folder):
    return AutoModel.from_pretrained(folder / "second" / "model", trust_remote_code=True)


def check(trace, model, folder):
    values = torch.ones(4)
    ratio = (model(values) / model.linear(values))[0].item()
    found = [finding for finding in findings(trace) if finding.rule == "R37"]
    if ratio == 100:
        assert found == []
        return
    assert ratio == 1
    (said,) = found
    assert "helper_parts.py" in said.evidence
    assert "modeling_parts.py" not in said.evidence.partition(" in ")[0]
    assert findings(trace)[0] == said
