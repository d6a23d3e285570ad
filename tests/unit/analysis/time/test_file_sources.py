"""Whose a file is: which load asked for it, and of which directory or repository."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from handmade_loads import Session
from hftrace.analysis.time.sources import load_of_span, source_names, source_of
from hftrace.render.views.files import draw
from hftrace.render.views.options import ViewOptions
from hftrace.replay.files import build_file_ledger
from hftrace.replay.keys import CheckpointHeaders
from hftrace.replay.weight_files import WeightFile
from hftrace.schema.model import Table, Tensor

CACHED = "/home/me/hub/models--org--tiny/snapshots/abc123"


def session():
    made = Session()
    first = made.load("AutoModel", "org/tiny", "LlamaModel")
    made.llama(first, "bfloat16")
    made.file("config.json", asked_by=first, path=f"{CACHED}/config.json")
    second = made.load("AutoModel", "/srv/models/other", "LlamaModel")
    made.llama(second, "bfloat16")
    made.file("config.json", asked_by=second + 1, source="/srv/models/other")
    made.file("tokenizer.model", "missing", asked_by=second, source="/srv/models/other")
    return made.trace()


def test_the_view_says_whose_a_file_is():
    trace = session()
    lines = ["".join(text for text, _ in line) for line in draw(trace, ViewOptions())[0].lines(80)]
    asked = [line.split() for line in lines if line.startswith(("config.json", "tokenizer.model"))]
    assert [(name, load, source) for name, load, source, *_ in asked] == [
        ("config.json", "1", "org/tiny"),
        ("config.json", "2", "other"),
        ("tokenizer.model", "2", "other"),
    ]
    assert load_of_span(trace)[trace.files[-1].asked_by] == 2


@pytest.mark.parametrize(
    ("source", "path", "name", "found"),
    [
        ("org/tiny", f"{CACHED}/config.json", "config.json", "org/tiny"),
        (None, f"{CACHED}/config.json", "config.json", "org/tiny"),
        (None, f"{CACHED}/vae/config.json", "vae/config.json", "org/tiny"),
        (None, "/srv/m/model.safetensors", "model.safetensors", "/srv/m"),
        (None, None, "vocab.txt", None),
    ],
)
def test_a_source_that_nobody_wrote_down(source, path, name, found):
    assert source_of(SimpleNamespace(source=source, path=path, name=name)) == found


def test_directories_of_one_name_keep_their_paths():
    made = Session()
    span = made.load("AutoModel", "a", "LlamaModel")
    for source in ("/one/llama", "/two/llama", "/two/gpt2", "org/llama"):
        made.file("config.json", asked_by=span, source=source)
    names = source_names(made.trace())
    assert names == {
        "/one/llama": "/one/llama",
        "/two/llama": "/two/llama",
        "/two/gpt2": "gpt2",
        "org/llama": "org/llama",
    }


def test_weights_are_of_the_place_that_their_load_named(tmp_path):
    """The loader asks for a config by the caller's words, and for weights by their whole path."""
    here = str(tmp_path)
    asked = [
        (2, {"name": "config.json", "path": f"{here}/config.json", "result": "local", "where": "llama"}),
        (3, {"name": "model.safetensors", "path": None, "result": "missing", "where": here}),
        (4, {"name": "vocab.json", "path": None, "result": "missing"}),
    ]
    weights = WeightFile(5, None)
    record = SimpleNamespace(
        status="ok",
        span_files={},
        parts_read={},
        asked=asked,
        checkpoint={f"{here}/model.bin": weights, "/else/adapter.bin": weights},
        downloads=[],
        requests={},
    )
    ledger = build_file_ledger(record, Table.of(Tensor, []), CheckpointHeaders(), complete=True)
    assert {row.name: row.source for row in ledger} == {
        "config.json": "llama",
        "model.safetensors": "llama",
        "vocab.json": None,
        "model.bin": "llama",
        "adapter.bin": "/else",
    }
