"""A class that ties by copying, over a head that the checkpoint has: the file's is lost."""

from __future__ import annotations

import torch
import transformers

DIFFERENT = ("lm_head.weight",)
FINDINGS = ("tied-by-copy", "verify-failed")


class Copying(transformers.LlamaForCausalLM):
    def tie_weights(self, *args, **kwargs):
        if self.lm_head.weight.device.type != "meta":
            self.lm_head.weight.data.copy_(self.model.embed_tokens.weight.data)


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
    return Copying.from_pretrained(folder, torch_dtype=torch.bfloat16)


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.name}
    row = rows["lm_head.weight"]
    assert (row.provenance, row.evidence) == ("tied", "tie_weights")
    assert row.keys == ["lm_head.weight"]
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
