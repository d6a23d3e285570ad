"""Embeddings resized after the load: the rows are of the model as it is now."""

from __future__ import annotations

from adapters import load_base, make_base, provenances, rows_of


def make(folder):
    make_base(folder)


def load(folder):
    model = load_base(folder)
    model.resize_token_embeddings(136)
    return model


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 19, "computed": 2}
    for row in (*rows_of(trace, "embed_tokens"), *rows_of(trace, "lm_head")):
        assert row.shape == [136, 32]
        assert (row.evidence, row.keys, row.stored_shape) == ("resized", [], None)
    (span,) = [span for span in trace.spans if span.phase == "surgery"]
    assert span.name == "LlamaForCausalLM.resize_token_embeddings"
