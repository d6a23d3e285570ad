"""A GGUF file that is deleted after its load, and another one written in its place."""

from __future__ import annotations

import gguf_files
import transformers

NEEDS = ("gguf",)
VERSIONS = ">=4.44"


make = gguf_files.make_llama


def load(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="m.gguf")
    (folder / "m.gguf").rename(folder / "loaded")
    (folder / "m.gguf").write_bytes(b"GGUF, and nothing that is one")
    return model


def check(trace, model, folder):
    (folder / "loaded").replace(folder / "m.gguf")  # what the tensors are held against
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert {row.provenance for row in rows} == {"checkpoint", "converted"}
    assert {(row.file, row.stored_dtype, row.offset is None) for row in rows} == {
        ("m.gguf", "float32", False),
        ("m.gguf", "float16", False),
    }
    (file,) = [file for file in trace.files if file.shard is not None]
    assert (file.afterwards, file.unread, file.damage) == ("changed", None, None)
    assert file.size_bytes == (folder / "m.gguf").stat().st_size
