"""Loads that failed name what they failed for: in the outcome, in the file ledger, and as a finding."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
import small_llama
import torch
import transformers
from processes import environment

import hftrace
from hftrace.analysis.ending.death import death_of
from hftrace.analysis.findings.registry import findings
from hftrace.render.evidence import evidence_sentences
from hftrace.replay.trace import replay

pytestmark = pytest.mark.integration
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 105000\n".format("0" * 64)
MODEL = transformers.LlamaForCausalLM


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    small_llama.write(folder, shards="20KB")
    return folder


@pytest.fixture
def model(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def failed(model, **keywords):
    """Returns the trace of a load that fails, and the exception, which is what it is without a trace."""
    with pytest.raises(Exception) as bare:  # noqa: PT011 (whatever this version raises)
        MODEL.from_pretrained(model, **keywords)
    with pytest.raises(type(bare.value)) as caught, hftrace.trace(sample_hz=0) as recorded:
        MODEL.from_pretrained(model, **keywords)
    assert str(caught.value) == str(bare.value)
    assert recorded.trace.outcome["status"] == "error"
    assert "<hftrace" not in recorded.trace.outcome["error"]["traceback"]
    assert recorded.trace.header["errors"] == []
    return recorded.trace


def rules(trace):
    return {found.rule: found for found in findings(trace)}


def check(trace, path, problem, size, expected, exact):
    """Checks that a file is named everywhere, with what is there and what should be."""
    (piece,) = [each for each in trace.outcome["evidence"] if each["kind"] == "damaged-file"]
    assert (piece["path"], piece["problem"]) == (str(path), problem)
    assert (piece["size_bytes"], piece["expected_bytes"], piece["expected_exact"]) == (size, expected, exact)
    (row,) = [each for each in trace.files if each.name == path.name]
    assert row.result == ("missing" if problem == "missing" else "damaged")
    assert (row.size_bytes, row.expected_bytes, row.damage) == (size, expected, problem)
    assert path.name in rules(trace)["R47"].title
    sentence = evidence_sentences(death_of(trace))[0]
    assert path.name in sentence
    if expected:
        assert f"{expected:,}" in sentence
    assert not any(each.damage for each in trace.files if each.name != path.name)


def data_bytes(path):
    """Returns what the tensors of a whole safetensors file take, without its header."""
    with open(path, "rb") as handle:
        return path.stat().st_size - 8 - int.from_bytes(handle.read(8), "little")


@pytest.mark.parametrize("problem", ["cut", "lfs-pointer", "missing", "empty", "longer", "header"])
def test_a_shard_that_is_not_whole(model, problem):
    shard = sorted(model.glob("model-*.safetensors"))[2]
    size, belongs = shard.stat().st_size, data_bytes(shard)
    data = shard.read_bytes()
    expected, exact = size, True
    if problem == "cut":
        shard.write_bytes(data[: size // 2 + 300])
    elif problem == "longer":
        shard.write_bytes(data + b"more")
    elif problem == "lfs-pointer":
        shard.write_text(POINTER)
        expected = 105000
    else:
        expected, exact = belongs, False
        if problem == "missing":
            shard.unlink()
        elif problem == "empty":
            shard.write_bytes(b"")
        else:
            shard.write_bytes(len(data).to_bytes(8, "little") + b'{"x": 1e400' + data)
    there = shard.stat().st_size if shard.exists() else None
    trace = failed(model)
    check(trace, shard, problem, there, expected, exact)
    assert death_of(trace).file == shard.name
    assert death_of(trace).shards == len(list(model.glob("model-*.safetensors"))) + (problem == "missing")


@pytest.mark.sparse
def test_a_folder_in_the_place_of_a_shard(model):
    shard = sorted(model.glob("model-*.safetensors"))[2]
    belongs = data_bytes(shard)
    shard.unlink()
    shard.mkdir()
    trace = failed(model)
    check(trace, shard, "format", None, belongs, False)
    assert "is a folder and not a file" in evidence_sentences(death_of(trace))[0]


@pytest.mark.sparse
@pytest.mark.parametrize("content", ["[]", '{"metadata": {}}', '{"weight_map": null}'])
def test_an_index_that_is_json_and_no_index(model, content):
    index = model / "model.safetensors.index.json"
    index.write_text(content)
    trace = failed(model)
    (row,) = [each for each in trace.files if each.name == index.name]
    assert (row.result, row.damage, row.size_bytes) == ("damaged", "format", len(content))
    assert "is no index of shards: it has no weight_map" in rules(trace)["R47"].evidence


@pytest.mark.sparse
@pytest.mark.parametrize("problem", ["cut", "empty", "lfs-pointer"])
def test_a_single_file_that_is_not_whole(tmp_path, problem):
    small_llama.write(tmp_path / "model", shards="1GB")
    path = tmp_path / "model" / "model.safetensors"
    size = path.stat().st_size
    kept = {"cut": path.read_bytes()[: size - 10], "empty": b"", "lfs-pointer": POINTER.encode()}[problem]
    path.write_bytes(kept)
    expected = {"cut": (size, True), "empty": (None, None), "lfs-pointer": (105000, True)}[problem]
    check(failed(tmp_path / "model"), path, problem, len(kept), *expected)


@pytest.mark.sparse
@pytest.mark.parametrize("problem", ["cut", "empty", "missing"])
def test_a_pickle_that_is_not_whole(whole, tmp_path, problem):
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(whole / "config.json", model)
    state = MODEL.from_pretrained(whole).state_dict()
    names = list(state)
    parts = [{name: state[name].clone() for name in names[at::2]} for at in (0, 1)]
    files = [f"pytorch_model-0000{at}-of-00002.bin" for at in (1, 2)]
    for name, part in zip(files, parts, strict=True):
        torch.save(part, model / name)
    sizes = [sum(tensor.numel() * tensor.element_size() for tensor in part.values()) for part in parts]
    weight_map = {key: name for name, part in zip(files, parts, strict=True) for key in part}
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
    (model / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    bad = model / files[1]
    kept = bad.read_bytes()[: bad.stat().st_size // 2]
    if problem == "missing":
        bad.unlink()
    else:
        bad.write_bytes(kept if problem == "cut" else b"")
    there = {"cut": len(kept), "empty": 0, "missing": None}[problem]
    check(failed(model), bad, problem, there, sizes[1], False)


def test_what_was_loaded_well_is_never_called_damaged(model):
    with hftrace.trace(sample_hz=0) as recorded:
        MODEL.from_pretrained(model)
    shard = sorted(model.glob("model-*.safetensors"))[0]
    shard.write_bytes(b"")
    assert recorded.trace.outcome["evidence"] == []
    assert not any(row.damage for row in recorded.trace.files)


def test_a_failure_of_another_kind_names_no_file(model):
    with pytest.raises(TypeError), hftrace.trace(sample_hz=0) as recorded:
        MODEL.from_pretrained(model, nosuchkeyword=1)
    assert recorded.trace.outcome["evidence"] == []
    assert not {"R47", "R48"} & rules(recorded.trace).keys()


def test_a_folder_and_a_variant_that_are_not_there(model, tmp_path):
    nowhere = f"{tmp_path}/no/such"
    trace = failed(nowhere)
    piece = {"kind": "not-there", "what": "folder", "name": nowhere, "where": None}
    assert trace.outcome["evidence"][0] == piece
    assert rules(trace)["R48"].title == f"There is no folder {nowhere}"
    trace = failed(str(model), variant="fp16")
    piece = {"kind": "not-there", "what": "variant", "name": "fp16", "where": str(model)}
    assert trace.outcome["evidence"][0] == piece
    assert "fp16" in rules(trace)["R48"].title


def test_shapes_that_differ_are_both_said(model):
    config = transformers.LlamaConfig.from_pretrained(model)
    config.vocab_size += 8
    trace = failed(model, config=config)
    pieces = [each for each in trace.outcome["evidence"] if each["kind"] == "mismatched-tensor"]
    stored = [config.vocab_size - 8, config.hidden_size]
    named = {each["name"]: (each["stored_shape"], each["shape"]) for each in pieces}
    name = next(iter(named))
    assert name in ("model.embed_tokens.weight", "lm_head.weight")
    assert named[name] == (stored, [config.vocab_size, config.hidden_size])
    row = next(row for row in trace.tensors if row.name == name)
    assert (row.evidence, row.provenance, row.placed_ns) == ("mismatched", None, None)
    assert str(stored) in rules(trace)["R31"].evidence
    assert str(config.vocab_size) in rules(trace)["R31"].evidence
    assert "damaged-file" not in {each["kind"] for each in trace.outcome["evidence"]}


LIMITED = """
import resource, sys
import hftrace, torch, transformers
import transformers.models.llama.modeling_llama
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
used = int(status["VmSize"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), resource.RLIM_INFINITY))
try:
    with hftrace.trace(sys.argv[2], sample_hz=0):
        transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
except Exception:
    pass
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """A load that RLIMIT_AS stops, and one whose journal RLIMIT_FSIZE stops."""
    place = tmp_path_factory.mktemp("limited")
    small_llama.write(place / "model", shards="1GB", vocab_size=64_000, hidden_size=256)
    load = [
        sys.executable,
        "-m",
        "hftrace",
        "load",
        place / "model",
        "--sample-hz",
        "0",
        "-q",
        "-o",
        "out.json",
    ]
    cut = (20 << 10, resource.RLIM_INFINITY)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LIMITED, place / "model", place / "as.json"], env=environment()
        ),
        subprocess.Popen(
            [*map(os.fspath, load)],
            cwd=place,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, cut),
        ),
    ]
    said = processes[1].communicate(timeout=120)[1]
    processes[0].wait(120)
    return place, processes[1].returncode, said


@pytest.mark.once
def test_the_limit_of_the_process_that_an_allocation_met(limited):
    trace = hftrace.Trace.open(limited[0] / "as.json")
    outcome = trace.outcome
    assert (outcome["killer"], outcome["limit_kind"]) == ("out-of-memory", "RLIMIT_AS")
    (piece,) = [each for each in outcome["evidence"] if each["kind"] == "process-limit"]
    assert piece["name"] == "RLIMIT_AS"
    assert 0 < piece["limit_bytes"] - piece["used_bytes"] < 64_000 * 256 * 4
    assert "RLIMIT_AS" in rules(trace)["R25"].evidence


@pytest.mark.once
def test_a_journal_that_may_not_grow_says_so(limited):
    place, code, said = limited
    assert "Traceback" not in said
    if not (place / "out.json").exists():
        assert (code, said.count("\n")) == (1, 1)
        assert "File too large" in said
        return
    trace = hftrace.Trace.open(place / "out.json")
    assert "the journal stopped (File too large)" in said
    (piece,) = trace.outcome["evidence"]
    assert (piece["kind"], piece["reason"]) == ("journal-stopped", "File too large")
    assert "The journal stopped: File too large" in rules(trace)["H01"].evidence


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
import torch, transformers
from hftrace.record.tracer import Tracer

real, reading = torch.Tensor.to, []

def slow(self, *args, **keywords):
    if threading.current_thread() is not threading.main_thread():
        reading.append(threading.get_native_id())
        if len(reading) > 3:
            with open(sys.argv[3], "w") as file:
                file.write(str(threading.get_native_id()))
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *args, **keywords)

Tracer(Path(sys.argv[2]), facts={}).start()
torch.Tensor.to = slow
transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
"""


@pytest.mark.once
def test_the_tensors_that_were_being_read_when_a_load_was_killed(whole, tmp_path):
    run, says = tmp_path / "run", tmp_path / "thread"
    run.mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, whole, run, says],
        env=environment({"HF_HUB_OFFLINE": "1"}),
        check=False,
    )
    assert ended.returncode == -9
    trace = replay(run)
    assert trace.outcome["status"] == "killed"
    reads = trace.outcome["reading"]
    hanging = [read for read in reads if read["thread"] == int(says.read_text())]
    assert len(hanging) == 1
    done = {row.keys[0] for row in trace.tensors if row.read_end_ns is not None}
    stored = {row.keys[0]: row.file for row in trace.tensors}
    assert done
    for read in reads:
        assert read["tensor"] not in done
        assert read["file"] == stored[read["tensor"]]
        assert read["since_ns"] > 0
    trace.save(tmp_path / "out.json")
    opened = hftrace.Trace.open(tmp_path / "out.json")
    assert [read.tensor for read in death_of(opened).reading] == [read["tensor"] for read in reads]
