"""The config says tied, and the checkpoint has a trained head of its own: 4.x drops it, 5.24 keeps it."""

from __future__ import annotations

import torch
import transformers
from safetensors.torch import load_file, save_file

DROPS = transformers.__version__ < "5"
FINDINGS = ("tied-over-own-key",) if DROPS else ()


def make(folder):
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "lm_head.weight": torch.randn(64, 32)}, path, {"format": "pt"})


def load(folder):
    # Cast: 4.48 and 4.50 then copy both keys into the one parameter, which holds the last of them.
    return transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.name}
    head, embedding = rows["lm_head.weight"], rows["model.embed_tokens.weight"]
    if not DROPS:
        assert head.provenance == embedding.provenance == "checkpoint"
        return
    assert {head.provenance, embedding.provenance} == {"tied", "checkpoint"}
    tied = head if head.provenance == "tied" else embedding
    assert tied.own_key_equal is False
    own = load_file(folder / "model.safetensors")[tied.keys[0]]
    assert not torch.equal(own.bfloat16(), model.lm_head.weight)
