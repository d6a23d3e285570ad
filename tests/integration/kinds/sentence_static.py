"""sentence-transformers: a table of embeddings that becomes a parameter as it was read."""

from __future__ import annotations

SPARSE = True
PRINTED = False
VERSIONS = ">=4.44"


def make(folder):
    import tokenizers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    words = tokenizers.models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]")
    module = StaticEmbedding(tokenizers.Tokenizer(words), embedding_dim=16)
    SentenceTransformer(modules=[module], device="cpu").save(str(folder / "model"))


def load(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder / "model"), device="cpu")


def check(trace, model, folder):
    (row,) = trace.tensors
    assert (row.name, row.provenance, row.keys) == ("0.embedding.weight", "checkpoint", ["embedding.weight"])
