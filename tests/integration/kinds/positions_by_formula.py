"""Parameters that no checkpoint has, as the model's class says: sinusoids, which its own code computes."""

from __future__ import annotations

import transformers
from packaging.version import Version
from truth import randomize

# 5.0 reports them as missing.
REPORTED = Version("5.0") <= Version(transformers.__version__) < Version("5.1")
FINDINGS = {"missing-weights"} if REPORTED else set()


def make(folder):
    config = transformers.MarianConfig(
        vocab_size=64,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
        pad_token_id=1,
        decoder_start_token_id=1,
    )
    model = transformers.MarianMTModel(config)
    randomize(model)
    model.save_pretrained(folder)


def load(folder):
    return transformers.MarianMTModel.from_pretrained(folder)


def check(trace, model, folder):
    rows = [row for row in trace.tensors if row.name and "embed_positions" in row.name]
    assert len(rows) == 2
    for row in rows:
        assert (row.keys, row.evidence) == ([], "initializer" if REPORTED else "expected")
        assert row.provenance in ("initialized", "unknown")
