"""A plain PyTorch module with a head of its own around a model of transformers that it loads."""

from __future__ import annotations

import transformers
from torch import nn


class Classifier(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body
        self.head = nn.Linear(16, 2)


def make(folder):
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.BertModel(config).save_pretrained(folder)


def load(folder):
    return Classifier(transformers.AutoModel.from_pretrained(folder)).body


def check(trace, model, folder):
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert {row.provenance for row in rows} == {"checkpoint"}
