"""Experts that 5.x merges into one parameter: the trace says of them what the library and the files say."""

from __future__ import annotations

import json
import time

import pytest

import hftrace
from hftrace.analysis.ledger.merges import merges
from hftrace.analysis.time.offloading import moved_models
from hftrace.analysis.time.placement import placements

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(transformers.__version__ < "5", reason="4.x keeps experts apart"),
]

EXPERTS, LAYERS = 6, 2
PARTS = {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("experts") / "mixtral"
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=EXPERTS,
    )
    transformers.MixtralForCausalLM(config).save_pretrained(place)
    return place


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


def stored(folder, parts):
    """Returns how many keys of one layer's experts there are in the header, and their bytes."""
    with open(folder / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    sizes = [
        entry["data_offsets"][1] - entry["data_offsets"][0]
        for key, entry in header.items()
        if ".layers.0." in key and any(f".{part}." in key for part in parts)
    ]
    return len(sizes), sum(sizes)


def operations_of(model):
    """Returns the operations that the library itself says it has for each merged parameter."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    found = {}
    for converter in get_model_conversion_mapping(model):
        operations = [type(operation).__name__ for operation in getattr(converter, "operations", ())]
        for target in converter.target_patterns:
            if operations:
                found[target.rpartition(".")[2].strip("$")] = operations
    return found


def test_what_was_merged(folder, capsys):
    with hftrace.trace(None) as recorded:
        model = load(folder)
    trace = recorded.trace
    truth = operations_of(model)
    found = {merge.label.rpartition(".")[2]: merge for merge in merges(trace)}
    assert set(found) == set(PARTS)
    for name, merge in found.items():
        keys, size = stored(folder, PARTS[name])
        assert merge.tensors == LAYERS
        assert merge.keys == LAYERS * keys
        assert merge.stored_bytes == LAYERS * size
        assert merge.largest_bytes == getattr(model.model.layers[0].mlp.experts, name).nbytes
        assert list(merge.operations) == truth[name]
        assert merge.merging_ns > 0
    others = [row for row in trace.tensors if row.provenance == "checkpoint"]
    assert {row.operations for row in others} == {None} or not others
    trace.show(view="memory", width=140)
    drawn = capsys.readouterr().out
    assert "Merged of several keys" in drawn
    assert "MergeModulelist, Concatenate" in drawn


def test_merging_is_not_waiting(folder, monkeypatch):
    """What the library's own operation takes is merging."""
    stack = torch.stack

    def slow(*args, **kwargs):
        time.sleep(0.02)
        return stack(*args, **kwargs)

    monkeypatch.setattr(torch, "stack", slow)
    with hftrace.trace(None) as recorded:
        load(folder)
    found = {merge.label.rpartition(".")[2]: merge for merge in merges(recorded.trace)}
    # One call of stack for the keys of each pattern.
    assert found["gate_up_proj"].merging_ns >= LAYERS * 2 * 20_000_000
    assert found["down_proj"].merging_ns >= LAYERS * 20_000_000


def test_a_load_that_ended_in_the_middle(folder, monkeypatch):
    """What had been merged by then is told, and is not said to be what lies in the file."""
    stack, calls = torch.stack, []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return stack(*args, **kwargs)

    monkeypatch.setattr(torch, "stack", stops)
    with pytest.raises(KeyboardInterrupt), hftrace.trace(None) as recorded:
        load(folder)
    trace = recorded.trace
    done = {merge.label: merge for merge in merges(trace)}
    assert {label.rpartition(".")[2] for label in done} == set(PARTS)
    for label, merge in done.items():
        assert ".layers.0." in label
        assert merge.keys == stored(folder, PARTS[label.rpartition(".")[2]])[0]
    placed = {row.name: row.provenance for row in trace.tensors if row.placed_ns is not None}
    assert {provenance for name, provenance in placed.items() if ".experts." in name} == {"converted"}


def test_merged_and_offloaded(folder, tmp_path):
    """What is merged is written anew, one file each, and each pass brings it in from there."""
    places = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu"}
    places |= {"model.rotary_emb": "cpu", "lm_head": "cpu"}
    with hftrace.trace(None) as recorded:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, device_map=places, offload_folder=str(tmp_path / "off")
        )
        with torch.no_grad():
            model(torch.arange(4)[None])
    trace = recorded.trace
    assert not trace.header["errors"]
    found = {merge.label.rpartition(".")[2]: merge for merge in merges(trace)}
    assert set(found) == set(PARTS)
    files = list((tmp_path / "off").iterdir())
    (placed,) = placements(trace)
    (written,) = placed.written
    assert written.files == len(files) == sum(merge.tensors for merge in found.values())
    assert written.bytes == sum(file.stat().st_size for file in files)
    (moved,) = moved_models(trace)
    offloaded = sum(row.bytes for row in trace.tensors if row.offload == "disk")
    assert moved.disk_bytes == offloaded
    assert moved.mapped
