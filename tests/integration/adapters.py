"""Writes a small model and adapters for it, for the kinds of load that have one."""

from __future__ import annotations

import json

import torch
import transformers
from truth import randomize

TARGETS = ("q_proj", "v_proj")


def make_base(folder, **changes):
    """Writes a Llama of random weights into ``folder/base``."""
    config = transformers.LlamaConfig(
        **{
            "vocab_size": 128,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "tie_word_embeddings": False,
            **changes,
        }
    )
    model = transformers.LlamaForCausalLM(config)
    randomize(model)
    model.save_pretrained(folder / "base")


def load_base(folder, **keywords):
    """Loads that model."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "base", **keywords)


def lora(**changes):
    """Returns the config of a LoRA adapter."""
    from peft import LoraConfig

    return LoraConfig(**{"r": 4, "target_modules": list(TARGETS), "task_type": "CAUSAL_LM", **changes})


def make_adapter(folder, config, name="adapter", *, seed=1, **how):
    """Writes an adapter of random weights into ``folder/name``, for the model in ``folder/base``."""
    from peft import get_peft_model

    model = get_peft_model(transformers.LlamaForCausalLM.from_pretrained(folder / "base"), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder / name, **how)
    path = folder / name / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["base_model_name_or_path"] = str(folder / "base")
    path.write_text(json.dumps(settings))


def rows_of(trace, part):
    """Returns the rows of tensors with a text in their name."""
    found = [row for row in trace.tensors if row.name is not None and part in row.name]
    assert found, part
    return found


def provenances(trace):
    """Returns how many parameters there are of each provenance."""
    counts = {}
    for row in trace.tensors:
        if row.kind == "parameter":
            counts[row.provenance] = counts.get(row.provenance, 0) + 1
    return counts
