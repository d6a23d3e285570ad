"""A GGUF file of Llama loaded as the model without its head."""

from __future__ import annotations

import gguf_files
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.44"
FINDINGS = ("unused-keys",)
make = gguf_files.make_llama


def load(folder):
    return transformers.AutoModel.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    assert {row.provenance for row in rows.values()} == {"checkpoint", "converted"}
    assert rows["embed_tokens.weight"].keys == ["token_embd.weight"]
    unused = {row.keys[0]: row.evidence for row in trace.tensors if row.kind == "unused"}
    assert unused == {"output.weight": None, "rope_freqs.weight": "ignored"}
