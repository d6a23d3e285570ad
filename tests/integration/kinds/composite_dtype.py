"""A dtype given to an auto class for a composite checkpoint, which some releases ignored (5.8, 5.9)."""

import torch
import transformers
from truth import randomize

from hftrace.analysis.findings.registry import findings

VERSIONS = ">=5.8"


def make(folder):
    text = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
    }
    config = transformers.Qwen3_5Config(text_config=text, vision_config=vision)
    model = transformers.Qwen3_5ForConditionalGeneration(config).to(torch.bfloat16)
    randomize(model)
    model.save_pretrained(folder)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


FINDINGS = ()  # the class leaves out the vision tower on purpose


def check(trace, model, folder):
    got = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
    found = [finding for finding in findings(trace) if finding.rule == "R32"]
    if got == {"float32"}:
        assert found == []
        return
    assert transformers.__version__.startswith(("5.8.", "5.9."))
    (said,) = found
    assert said.title == f"Asked for float32, got {' and '.join(sorted(got))}"
    assert f"All {len(list(model.parameters()))} parameters" in said.evidence
    assert findings(trace)[0] == said
