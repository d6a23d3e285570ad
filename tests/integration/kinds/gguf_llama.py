"""A GGUF file of Llama: half precision and 32-bit norms, a head of its own, permuted queries and keys."""

from __future__ import annotations

import gguf_files
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.44"


make = gguf_files.make_llama


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")


def check(trace, model, folder):
    rows = {row.name: row for row in trace.tensors if row.kind == "parameter"}
    (table,) = [row for row in trace.tensors if row.kind == "unused"]
    assert (table.keys, table.evidence) == (["rope_freqs.weight"], "ignored")
    assert (rows["lm_head.weight"].provenance, rows["lm_head.weight"].keys) == (
        "checkpoint",
        ["output.weight"],
    )
    permuted = {name for name, row in rows.items() if row.provenance == "converted"}
    assert permuted == {name for name in rows if "q_proj" in name or "k_proj" in name}
    assert {row.provenance for name, row in rows.items() if name not in permuted} == {"checkpoint"}
    assert {row.stored_dtype for name, row in rows.items() if "norm" in name} == {"float32"}
    assert {row.stored_dtype for name, row in rows.items() if "norm" not in name} == {"float16"}
    assert all(row.file == "m.gguf" and row.read_start_ns < row.read_end_ns for row in rows.values())
    gguf_files.assert_file_row(trace, (folder / "m.gguf").stat().st_size)
    spans = {span.id: span for span in trace.spans}
    (unpacking,) = [span for span in spans.values() if span.name == "dequantize"]
    assert (unpacking.phase, unpacking.attributes["tensors"]) == ("convert", len(rows) + 1)
    assert spans[unpacking.parent].name == "load_gguf_checkpoint(m.gguf)"
    assert spans[unpacking.parent].phase == "shard"
