"""An index that lacks a key of its shard: 5.x reads it all the same, as 4.36 to 4.49 do without knowing."""

from __future__ import annotations

import json

import torch
import transformers
from packaging.version import Version

from hftrace.analysis.findings.registry import findings

KEY = "encoder.layer.0.attention.self.query.weight"
LOADED, MISSING, WHOLE = range(3)
WHAT = (
    WHOLE
    if Version(transformers.__version__) >= Version("5")
    else MISSING
    if Version(transformers.__version__) >= Version("4.50")
    else LOADED
)
FINDINGS = {WHOLE: set(), MISSING: {"missing-weights"}, LOADED: {"unknown-weights"}}[WHAT]
UNKNOWN = {KEY} if WHAT == LOADED else set()


def make(folder):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=300
    )
    transformers.BertModel(config).save_pretrained(folder, max_shard_size="200KB")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"].pop(KEY)
    path.write_text(json.dumps(index))


def load(folder):
    return transformers.BertModel.from_pretrained(folder)


def check(trace, model, folder):
    (row,) = (row for row in trace.tensors if row.name == KEY)
    unused = [row for row in trace.tensors if row.kind == "unused"]
    if WHAT == MISSING:
        assert [row.evidence for row in unused] == ["unlisted"]
        assert row.provenance == "initialized"
        (finding,) = (each for each in findings(trace) if each.name == "missing-weights")
        assert "the index of the shards does not name it" in finding.evidence
        assert "Train" not in finding.advice
    else:
        # Until 4.49 nothing says of each tensor that it was loaded, and this one is called missing.
        assert row.provenance == ("checkpoint" if WHAT == WHOLE else "unknown")
        assert unused == []
