"""A dtype for each part of a composite model: 4.57 loads each in its own, 5.x all in one."""

import torch
import transformers
from packaging.version import Version
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from truth import randomize

from hftrace.analysis.findings.registry import findings

VERSIONS = ">=4.48"
ASKED = {"text_config": torch.bfloat16, "vision_config": torch.float16, "": torch.float32}
# 4.x honours them.
WARNED = ("asked-not-got",) if transformers.__version__ >= "5" else ()


def make(folder):
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=32,
    )
    text = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text))
    randomize(model)
    model.save_pretrained(folder)


def load(folder):
    return LlavaForConditionalGeneration.from_pretrained(folder, torch_dtype=ASKED)


def part_of(name):
    parts = {"vision_tower": "vision_config", "language_model": "text_config", "lm_head": "text_config"}
    return next((config for part, config in parts.items() if part in name.split(".")), "")


def check(trace, model, folder):
    got = {}
    for name, parameter in model.named_parameters():
        if "lm_head" not in name:  # of the text model or of the whole, as the release has it
            got.setdefault(part_of(name), set()).add(parameter.dtype)
    wrong = {part for part, dtypes in got.items() if dtypes != {ASKED[part]}}
    if Version(transformers.__version__) >= Version("5.0"):
        assert wrong
    found = [finding for finding in findings(trace) if finding.rule == "R32"]
    named = {part for part in got for finding in found if f"{part!r}: " in finding.evidence}
    assert wrong <= named
    assert not {"vision_config", "text_config"} & named - wrong
    for finding in found:
        assert findings(trace)[0].rule == "R32"
        assert "float32" in finding.title or "float16" in finding.title
