"""Two pickles with an index, loaded by the base model's class: names are below the base model's own."""

from __future__ import annotations

import json

import torch
import transformers


def make(folder):
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    model = transformers.BertForMaskedLM(config)
    config.save_pretrained(folder)
    tensors = {
        name: tensor for name, tensor in model.state_dict().items() if not name.endswith("position_ids")
    }
    names = list(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: tensors[name].clone() for name in part}, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def load(folder):
    return transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)


FINDINGS = {"unused-keys"}


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert {row.provenance for row in rows.values()} == {"checkpoint"}
    assert rows["embeddings.word_embeddings.weight"].keys == ["bert.embeddings.word_embeddings.weight"]
    unused = [row.keys[0] for row in trace.tensors if row.kind == "unused"]
    assert unused
    assert all(key.startswith("cls.") for key in unused)
