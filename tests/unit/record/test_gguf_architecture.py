"""The architecture of a GGUF file by its first lines, and what a load of one is called."""

from __future__ import annotations

import struct

import pytest

from handmade_loads import Session
from hftrace.analysis.time.load_names import load_names
from hftrace.record.child.gguf_header import architecture_of


def text(words):
    return struct.pack("<Q", len(words)) + words.encode()


def header(magic=b"GGUF", version=3, key="general.architecture", kind=8, value="llama"):
    return struct.pack("<4sIQQ", magic, version, 2, 1) + text(key) + struct.pack("<I", kind) + text(value)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (header(), "llama"),
        (header(version=2, value="qwen2"), "qwen2"),
        (header(magic=b"GGML"), None),
        (header(version=1), None),
        (header(version=3 << 24), None),
        (header(key="general.name"), None),
        (header(kind=9), None),
        (header()[:30], None),
        (header(value="x" * 300), None),
        (b"", None),
    ],
)
def test_the_first_lines_of_a_header(tmp_path, data, found):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    assert architecture_of(str(path)) == found


def test_a_file_that_is_not_there(tmp_path):
    assert architecture_of(str(tmp_path / "m.gguf")) is None


@pytest.mark.parametrize(
    ("source", "name"),
    [(".", "m.gguf"), ("m.gguf", "m.gguf"), ("org/tiny", "org/tiny/m.gguf"), ("a/m.gguf", "a/m.gguf")],
)
def test_a_load_goes_by_its_file(source, name):
    made = Session()
    made.load("AutoModelForCausalLM", source, "LlamaForCausalLM", keywords={"gguf_file": "m.gguf"})
    (found,) = load_names(made.trace())
    assert (found.source, found.base) == (name, name)
