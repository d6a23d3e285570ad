"""A class that scales weights once they are loaded, which verify finds."""

from __future__ import annotations

import torch
import transformers

CHANGED = "lm_head.weight"
DIFFERENT = (CHANGED,)
FINDINGS = ("verify-failed",)


class Changed(transformers.LlamaForCausalLM):
    """What a remote class may do, without a word to anybody."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        model = super().from_pretrained(*args, **kwargs)
        # Not through torch's counter of versions, which would give it away.
        model.lm_head.weight.data.mul_(2)
        return model


def make(folder):
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def load(folder):
    return Changed.from_pretrained(folder, torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.name}
    for name, row in rows.items():
        if row.kind == "parameter":
            assert row.verified is (name not in DIFFERENT)
    assert (rows[CHANGED].provenance, rows[CHANGED].evidence) == ("unknown", "differs")
    assert rows[CHANGED].max_difference > 0
