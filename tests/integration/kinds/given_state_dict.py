"""Weights that the caller hands in: they are of no file."""

from __future__ import annotations

import transformers


def config():
    return transformers.BertConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )


def make(folder):
    transformers.BertModel(config()).save_pretrained(folder)


def load(folder):
    weights = transformers.BertModel(config()).state_dict()
    return transformers.BertModel.from_pretrained(None, config=config(), state_dict=weights)


def check(trace, model, folder):
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert {(row.provenance, row.file) for row in rows} == {("state_dict", None)}
