"""Both tied keys are in a pickle and hold the same, each in a storage of its own: nothing is lost."""

from __future__ import annotations

import torch
import transformers
from packaging.version import Version

# 5.0 to 5.3 leave apart what has two keys, whatever these hold.
APART = Version("5.0") <= Version(transformers.__version__) < Version("5.4")


def make(folder):
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    config.save_pretrained(folder)
    state = transformers.LlamaForCausalLM(config).state_dict()
    head = state["model.embed_tokens.weight"].clone()
    torch.save({**state, "lm_head.weight": head}, folder / "pytorch_model.bin")


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)


def check(trace, model, folder):
    tied = [row for row in trace.tensors if row.provenance == "tied"]
    assert [row.own_key_equal for row in tied] == ([] if APART else [True])
    if APART:
        assert {row.provenance for row in trace.tensors if row.kind == "parameter"} == {"checkpoint"}
