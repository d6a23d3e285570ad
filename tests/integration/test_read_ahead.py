"""Loads whose bytes arrive before the loader asks: the ledger, memory, and what is said of waiting."""

from __future__ import annotations

import ctypes
import gc
import json
from pathlib import Path

import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from truth import assert_same_model, disagreements, model_tensors

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.time.arrival import arrival
from hftrace.analysis.time.limit import reading_cause
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.weights import weight_bytes
from hftrace.cli.export import command as export
from hftrace.cli.show import command as show
from hftrace.synth import plan, write, write_many
from hftrace.system.page_cache import evict, resident
from prefetching import PlainOpen, SafeOpen, Settings, install, warming_open

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        int(transformers.__version__.partition(".")[0]) < 5, reason="loaders of 5.x take slices"
    ),
]
KINDS = {
    "plain": ("dense", {}),
    "cast": ("dense", {"dtype": "float32"}),
    "one file": ("tied", {}),
    "device map": ("dense", {"device_map": "cpu"}),
    "experts": ("experts", {}),
    "experts, cast": ("experts", {"dtype": "bfloat16"}),
    "copies": ("dense", {}),
}
"""Each kind of load: its checkpoint and its keywords."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Small ones: several files, one file and tied embeddings, experts that are merged; and one of 300 MB."""
    place = tmp_path_factory.mktemp("ahead")
    write_many(place / "dense", 30, hidden_size=64, max_shard_size="200KB")
    write(plan("llama-2-7b", "2MB", overrides={"tie_word_embeddings": True}), place / "tied")
    config = transformers.Qwen2MoeConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
    )
    torch.manual_seed(0)
    transformers.Qwen2MoeForCausalLM(config).save_pretrained(place / "experts")
    write_many(place / "big", 66, hidden_size=1456, max_shard_size="120MB")
    assert 280e6 < sum(path.stat().st_size for path in (place / "big").glob("*.safetensors")) < 320e6
    AutoModelForCausalLM.from_pretrained(place / "dense")  # the first load of a process imports
    return place


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    from transformers import modeling_utils
    from transformers.distributed import utils

    monkeypatch.setattr(modeling_utils, "safe_open", modeling_utils.safe_open)
    monkeypatch.setattr(utils, "prefetch_checkpoint_shards", None, raising=False)
    monkeypatch.delattr(utils, "prefetch_checkpoint_shards")
    for name in ("threads", "pause", "copy_full"):
        monkeypatch.setattr(Settings, name, getattr(Settings, name))


def traced(path, out, opened=SafeOpen, **keywords):
    install(opened)
    # Memory that earlier loads left in the heap would be taken without asking the kernel.
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    with hftrace.trace(out):
        model = AutoModelForCausalLM.from_pretrained(path, **keywords)
    return model, hftrace.Trace.open(out)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ledger_is_the_truth(kind, checkpoints, tmp_path):
    name, keywords = KINDS[kind]
    Settings.copy_full = kind == "copies"
    plain = AutoModelForCausalLM.from_pretrained(checkpoints / name, **keywords)
    model, trace = traced(checkpoints / name, tmp_path / "out.json", **keywords)
    assert_same_model(model, plain)
    assert disagreements(model, trace) == []
    headers = {}
    for path in (checkpoints / name).glob("*.safetensors"):
        text = path.read_bytes()
        length = int.from_bytes(text[:8], "little")
        header = json.loads(text[8 : 8 + length])
        header.pop("__metadata__", None)
        headers.update({key: (path.name, 8 + length, entry) for key, entry in header.items()})
    rows = [row for row in trace.tensors if row.keys]
    assert {key for row in rows for key in row.keys} == headers.keys()
    for row in rows:
        assert row.stored_bytes == sum(
            end - start for start, end in (headers[key][2]["data_offsets"] for key in row.keys)
        )
        if len(row.keys) == 1:
            file, base, entry = headers[row.keys[0]]
            assert (row.file, row.offset) == (file, base + entry["data_offsets"][0])
        assert row.read_start_ns is None
        assert row.asked_ns <= row.read_end_ns <= row.placed_ns
        assert trace.spans[[span.id for span in trace.spans].index(row.span)].phase == "weights"
    # Views of one allocation are no tie, and each weight is counted once.
    tied = {row.name for row in trace.tensors if row.tied_to or row.same_as}
    assert tied == ({"lm_head.weight"} if name == "tied" else set())
    own = {id(tensor): tensor.nbytes for _, tensor, _ in model_tensors(model).values()}
    assert sum(row.bytes for row in trace.tensors if not row.tied_to) == sum(own.values())
    came = arrival(trace)
    assert came.in_background
    assert came.bytes == sum(row.stored_bytes for row in rows)
    assert weight_bytes(trace) == (came.bytes, 0, 0)
    assert {file.name: file.read_bytes for file in trace.files if file.read_bytes} == {
        name: sum(row.stored_bytes for row in rows if row.file == name) for name in {row.file for row in rows}
    }


def said(out, page):
    """Everything that is said of a trace: its screens and its page."""
    calls = [(show, out, "--width", width) for width in ("80", "140")]
    calls += [(show, out, "--view", view) for view in ("tree", "timeline", "memory", "tensors", "files")]
    calls.append((export, out, "-o", page))
    shown = []
    for command, *arguments in calls:
        done = CliRunner().invoke(command, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        shown.append(done.output)
    return "\n".join([*shown, page.read_text()])


ALONE = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from test_read_ahead import KINDS, Settings, disagreements, traced
path, out, kind, settings = sys.argv[3:]
for name, value in json.loads(settings).items():
    setattr(Settings, name, value)
model, trace = traced(path, Path(out), **KINDS[kind][1])
assert disagreements(model, trace) == []
"""


def traced_alone(run_python, path, out, kind="plain", **settings):
    """The same in a process of its own: room in the heap of one that has loaded much falsifies sizes."""
    here = Path(__file__).parent
    done = run_python("-c", ALONE, here.parent, here, path, out, kind, json.dumps(settings))
    assert done.returncode == 0, done.stderr
    return hftrace.Trace.open(out)


def test_a_wait_is_not_for_storage(checkpoints, tmp_path, run_python):
    """300 MB, in part from storage, by threads that take their time: those that ask read nothing."""
    files = sorted((checkpoints / "big").glob("*.safetensors"))
    evict(files)
    cold = resident(files) == 0
    trace = traced_alone(run_python, checkpoints / "big", tmp_path / "out.json", pause=0.08, threads=2)
    came = arrival(trace)
    assert came.in_background
    assert came.called_bytes == pytest.approx(came.bytes, rel=0.02)
    assert not cold or came.storage_bytes > 0.9 * came.bytes
    assert reading_cause(trace) == ("arrival", "waiting for weights that other threads read ahead")
    shards = weight_reading(trace).shards
    assert len(shards) == len(files)
    assert all(shard.duration_ns is None and not shard.busy_ns for shard in shards)
    found = {finding.rule: finding for finding in findings(trace)}
    assert not {"R04", "R07"} & found.keys()
    assert "were read by other threads, ahead of them" in found["R24"].evidence
    text = said(tmp_path / "out.json", tmp_path / "report.html")
    assert "waiting for storage" not in text
    assert "Storage was a part of it" not in text
    assert "reader thread" not in text
    assert "read ahead" in text
    # All of it is the model's, in allocations that many parameters share.
    parts = peak_composition(trace)
    assert parts.explained > 0.95
    assert not parts.overstated_bytes
    sizes = {part.kind: part for part in parts.parts}
    assert sizes["parameters"].bytes == pytest.approx(came.bytes, rel=0.001)
    assert sizes["parameters"].memory == "anonymous"
    assert not {"sources", "kept", "other-mapped"} & sizes.keys()
    assert came.shared
    assert came.kept_bytes == 0


@pytest.mark.parametrize("kind", ["cast", "copies"])
def test_what_was_read_ahead_is_there_beside_what_was_made_of_it(kind, checkpoints, tmp_path, run_python):
    full = {"copy_full": True} if kind == "copies" else {}
    trace = traced_alone(run_python, checkpoints / "big", tmp_path / "out.json", kind, **full)
    came, parts = arrival(trace), peak_composition(trace)
    assert came.shared is False
    sizes = {part.kind: part for part in parts.parts}
    assert sizes["sources"].bytes == pytest.approx(came.bytes, rel=0.02)
    assert sizes["sources"].memory == "anonymous"
    assert sizes["parameters"].bytes == pytest.approx(came.bytes * (2 if kind == "cast" else 1), rel=0.001)
    assert parts.explained > 0.95


def test_an_allocation_holds_what_nobody_wants(checkpoints, tmp_path):
    """A key that the model does not know lies between others: views of its neighbours keep it."""
    place = tmp_path / "model"
    place.mkdir()
    tensors = load_file(next(iter((checkpoints / "tied").glob("*.safetensors"))))
    tensors["unknown.weight"] = torch.ones(4000, 2500)
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    (place / "config.json").write_bytes((checkpoints / "tied" / "config.json").read_bytes())
    model, trace = traced(place, tmp_path / "out.json")
    assert disagreements(model, trace) == []
    assert arrival(trace).kept_bytes == 40_000_000
    kept = {part.kind: part.bytes for part in peak_composition(trace).parts}["kept"]
    assert kept == pytest.approx(40_000_000, rel=0.1)
    assert [row.keys for row in trace.tensors if row.kind == "unused"] == [["unknown.weight"]]


def test_what_reads_when_it_is_asked_is_not_said_to_read_ahead(checkpoints, tmp_path):
    """Another slice written in Python: how it reads is not known, and not guessed."""
    model, trace = traced(checkpoints / "big", tmp_path / "out.json", PlainOpen, dtype="float32")
    assert disagreements(model, trace) == []
    came = arrival(trace)
    assert not came.in_background
    assert came.handed_by == "PlainSlice"
    text = said(tmp_path / "out.json", tmp_path / "report.html")
    assert "read ahead" not in text
    assert "waiting for storage" not in text
    assert all(row.read_start_ns is None for row in trace.tensors)


def test_the_page_cache_is_filled_by_threads_before(checkpoints, tmp_path):
    """``HF_SHARD_PREFETCH``: the wait for these threads is one, and no read of the loader's."""
    files = sorted((checkpoints / "big").glob("*.safetensors"))
    evict(files)
    Settings.pause = 0.01
    opened = warming_open(list(map(str, files)))
    model, trace = traced(checkpoints / "big", tmp_path / "out.json", opened, dtype="float32")
    assert disagreements(model, trace) == []
    assert arrival(trace) is None
    (span,) = [span for span in trace.spans if span.phase == "prefetch"]
    assert span.name == "prefetch_checkpoint_shards"
    assert all(row.read_start_ns >= span.end_ns for row in trace.tensors if row.keys)
    assert reading_cause(trace)[0] != "storage"
    text = said(tmp_path / "out.json", tmp_path / "report.html")
    assert "prefetch_checkpoint_shards" in text
    assert "waiting for storage" not in text


@pytest.mark.long
def test_a_load_that_is_killed_waited(checkpoints, tmp_path, run_cli):
    out = tmp_path / "out.json"
    script = Path(__file__).resolve().parents[1] / "prefetching.py"
    slow = ("ahead.pause=0.05", "ahead.threads=1")
    done = run_cli("run", "--memory-limit", "400MB", "-o", out, script, checkpoints / "big", *slow)
    assert done.returncode == 3, done.stderr
    trace = hftrace.Trace.open(out)
    reads = trace.outcome["reading"]
    assert reads
    assert all(read["handed"] is True for read in reads)
    shown = CliRunner().invoke(show, [str(out), "--view", "postmortem"])
    beginnings = [line[:12] for line in shown.output.splitlines()]
    assert "waiting for " in beginnings
    assert "reading     " not in beginnings


def test_slices_of_safe_open_are_read_as_ever(checkpoints, tmp_path):
    with hftrace.trace(tmp_path / "out.json"):
        AutoModelForCausalLM.from_pretrained(checkpoints / "dense")
    trace = hftrace.Trace.open(tmp_path / "out.json")
    assert arrival(trace) is None
    rows = [row for row in trace.tensors if row.keys]
    assert all(row.read_start_ns is not None and row.asked_ns is None for row in rows)
    assert not any("handed_by" in span.attributes or "allocations" in span.attributes for span in trace.spans)
