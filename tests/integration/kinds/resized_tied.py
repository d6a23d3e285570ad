"""Embeddings resized after the load, and a head tied to them: one tensor, and it counts once."""

from __future__ import annotations

from adapters import load_base, make_base, provenances, rows_of

from hftrace.analysis.time.weights import weight_bytes


def make(folder):
    make_base(folder, tie_word_embeddings=True)


def load(folder):
    model = load_base(folder)
    model.resize_token_embeddings(136)
    return model


def check(trace, model, folder):
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert provenances(trace) == {"checkpoint": 19, "computed": 1, "tied": 1}
    (row,) = rows_of(trace, "lm_head")
    assert row.tied_to == "model.embed_tokens.weight"
    # The load has taken the whole file, whatever became of the embeddings.
    moved = weight_bytes(trace)
    stored = {row.keys[0]: row.stored_bytes for row in trace.at_return if row.keys}
    assert moved.read + moved.mapped + moved.unknown == sum(stored.values())
