"""A speech model whose `tie_weights` reads a language's weights from a file of its own, over others."""

from __future__ import annotations

import torch
import transformers
from safetensors.torch import save_file
from truth import randomize

LANGUAGE = "adapter.eng.safetensors"


def make(folder):
    config = transformers.Wav2Vec2Config(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16),
        conv_stride=(2, 2),
        conv_kernel=(3, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        adapter_attn_dim=8,
        do_stable_layer_norm=True,
    )
    model = transformers.Wav2Vec2ForCTC(config)
    randomize(model)
    model.save_pretrained(folder)
    adapter = {name: torch.randn_like(tensor) for name, tensor in model._get_adapters().items()}
    save_file(adapter, folder / LANGUAGE, metadata={"format": "pt"})


def load(folder):
    return transformers.Wav2Vec2ForCTC.from_pretrained(folder, target_lang="eng")


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors}
    assert not [row for row in trace.tensors if row.kind == "unused"]
    adapter = {name for name, row in rows.items() if row.file == LANGUAGE}
    assert adapter == set(model._get_adapters())
    assert {rows[name].provenance for name in adapter} == {"checkpoint"}
    assert [file.opened for file in trace.files if file.name == LANGUAGE] == [True]
