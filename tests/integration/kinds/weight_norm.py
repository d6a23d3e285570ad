"""A speech model with a convolution under weight norm, whose parametrised names have changed."""

from __future__ import annotations

import transformers


def make(folder):
    config = transformers.Wav2Vec2Config(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=(16, 16),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
    )
    transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)


def load(folder):
    return transformers.AutoModelForCTC.from_pretrained(folder)


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert {row.provenance for row in rows.values()} == {"checkpoint"}
    assert any("conv.parametrizations.weight.original0" in name or "weight_g" in name for name in rows)
