"""A head of another size, which ``ignore_mismatched_sizes`` leaves out: both shapes are told."""

from __future__ import annotations

import transformers
from packaging.version import Version

FINDINGS = {"mismatched-shapes"}
# 4.36 takes what it leaves out for loaded: nobody writes it, which cannot be told from a class that fills
# its tensors as it makes them.
LEFT_ALONE = Version(transformers.__version__) < Version("4.37")


def small(labels):
    return transformers.BertConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=labels,
    )


def make(folder):
    transformers.BertForSequenceClassification(small(6)).save_pretrained(folder)


def load(folder):
    # As many values as before, in another shape: the loader compares shapes, and not counts.
    return transformers.BertForSequenceClassification.from_pretrained(
        folder, num_labels=3, ignore_mismatched_sizes=True
    )


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.kind != "unused"}
    row = rows["classifier.weight"]
    told = ("unknown", None) if LEFT_ALONE else ("initialized", "initializer")
    assert (row.provenance, row.evidence, row.keys) == (*told, [])
    assert (row.shape, row.stored_shape) == ([3, 16], [6, 16])
    assert {(row.keys[0], row.evidence) for row in trace.tensors if row.kind == "unused"} == {
        ("classifier.weight", "mismatched"),
        ("classifier.bias", "mismatched"),
    }
    assert rows["bert.pooler.dense.weight"].stored_shape == [16, 16]
