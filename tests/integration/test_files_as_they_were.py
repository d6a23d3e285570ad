"""What a header says is that of the file that was loaded, whatever has become of its path since."""

from __future__ import annotations

import collections
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.record.child.keywords import dtype_keyword

pytestmark = pytest.mark.integration

CONFIG = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
PARAMETERS = 12


def save(folder, dtype=torch.float32, **how):
    LlamaForCausalLM(LlamaConfig(**CONFIG)).to(dtype).save_pretrained(folder, **how)


def load(folder, dtype=torch.float32, model_class=LlamaForCausalLM):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model_class.from_pretrained(folder, **{dtype_keyword(): dtype})


def write_over(path: Path, content: bytes) -> None:
    """Writes into the file itself, as safetensors did before 0.8 and torch.save does."""
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate()


def descriptors() -> set[str]:
    return {number for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")}


def parameters(trace, load=None):
    """Returns how many parameters there are of each provenance and stored dtype."""
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert not [row for row in rows if row.provenance == "checkpoint" and row.file is None]
    return dict(
        collections.Counter(
            (row.provenance, row.stored_dtype) for row in rows if load is None or row.load == load.span
        )
    )


def weight_files(trace):
    return {file.name: (file.afterwards, file.unread) for file in trace.files if file.shard is not None}


@pytest.mark.parametrize("shards", [None, "8KB"])
def test_a_temporary_folder_that_is_gone(shards):
    before = descriptors()
    with hftrace.trace() as recorded, tempfile.TemporaryDirectory() as folder:
        save(folder, **({"max_shard_size": shards} if shards else {}))
        sizes = {path.name: path.stat().st_size for path in Path(folder).glob("*.safetensors")}
        load(folder)
    trace = recorded.trace
    assert descriptors() == before
    assert parameters(trace) == {("checkpoint", "float32"): PARAMETERS}
    assert None not in {row.offset for row in trace.tensors if row.kind == "parameter"}
    assert weight_files(trace) == dict.fromkeys(sizes, ("gone", None))
    assert {file.name: file.size_bytes for file in trace.files if file.shard is not None} == sizes
    assert not [file for file in trace.files if file.shard is not None and file.result != "local"]
    assert not [finding for finding in findings(trace) if finding.concerns == "weights"]


def test_a_pickle_in_a_temporary_folder_that_is_gone(tmp_path):
    save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with hftrace.trace() as recorded:
        load(tmp_path)
        shutil.rmtree(tmp_path)
    assert parameters(recorded.trace) == {("checkpoint", "float32"): PARAMETERS}
    assert weight_files(recorded.trace) == {"pytorch_model.bin": ("gone", None)}


def test_two_keys_of_a_tied_tensor_are_compared_in_the_file_that_was_loaded(tmp_path):
    """5.24 keeps both; the versions before drop one of them, and say nothing."""
    folder, path = tmp_path / "model", tmp_path / "model" / "model.safetensors"
    LlamaForCausalLM(LlamaConfig(**CONFIG, tie_word_embeddings=True)).save_pretrained(folder)
    tensors = load_file(path)
    head = {"lm_head.weight": torch.randn(64, 16)}
    save_file({**tensors, **head}, path, {"format": "pt"})
    with hftrace.trace() as recorded:
        load(folder)
        shutil.rmtree(folder)
    compared = [row.own_key_equal for row in recorded.trace.tensors if row.provenance == "tied"]
    assert compared in ([False], [])


@pytest.mark.parametrize("in_place", [False, True])
def test_a_checkpoint_that_is_saved_anew(tmp_path, in_place):
    save(tmp_path / "old")
    save(tmp_path / "new", torch.bfloat16)
    old, new = tmp_path / "old" / "model.safetensors", tmp_path / "new" / "model.safetensors"
    with hftrace.trace() as recorded:
        load(tmp_path / "old")
        if in_place:
            write_over(old, new.read_bytes())
        else:
            os.replace(new, old)
    assert parameters(recorded.trace) == {("checkpoint", "float32"): PARAMETERS}
    assert weight_files(recorded.trace) == {"model.safetensors": ("changed", None)}


@pytest.mark.parametrize("in_place", [False, True])
def test_loads_of_one_path_each_tell_their_own(tmp_path, in_place):
    path = tmp_path / "model" / "model.safetensors"
    dtypes = ("float32", "float16", "bfloat16")
    for dtype in dtypes:
        save(tmp_path / dtype, getattr(torch, dtype))
        shutil.copy(tmp_path / dtype / path.name, tmp_path / f"{dtype}.size")
    shutil.copytree(tmp_path / "float32", path.parent)
    with hftrace.trace() as recorded:
        for dtype in dtypes:
            if in_place:
                write_over(path, (tmp_path / dtype / path.name).read_bytes())
            else:
                os.replace(tmp_path / dtype / path.name, path)
            load(path.parent, getattr(torch, dtype))
    trace = recorded.trace
    for made, dtype in zip(trace.loads, dtypes, strict=True):
        assert parameters(trace, made) == {("checkpoint", dtype): PARAMETERS}
    sizes = [file.size_bytes for file in trace.files if file.shard is not None]
    assert sizes == [(tmp_path / f"{dtype}.size").stat().st_size for dtype in dtypes]
    assert [file.afterwards for file in trace.files if file.shard is not None] == ["changed", "changed", None]


def test_a_snapshot_of_the_cache_that_is_updated_and_collected(tmp_path):
    """As the cache of the Hub is: a link per file, to a blob that has the file's hash as its name."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    for dtype in ("float32", "float16"):
        save(tmp_path / dtype, getattr(torch, dtype))
        (tmp_path / dtype / "model.safetensors").rename(blobs / dtype)
    snapshot.mkdir(parents=True)
    shutil.copy(tmp_path / "float32" / "config.json", snapshot)
    link = snapshot / "model.safetensors"
    link.symlink_to(blobs / "float32")
    with hftrace.trace() as recorded:
        load(snapshot)
        link.unlink()
        link.symlink_to(blobs / "float16")
        (blobs / "float32").unlink()
    assert parameters(recorded.trace) == {("checkpoint", "float32"): PARAMETERS}
    assert weight_files(recorded.trace) == {"model.safetensors": ("changed", None)}


def test_a_checkpoint_of_a_training_that_is_moved_away(tmp_path):
    """The folder goes elsewhere, and the next checkpoint takes its place."""
    save(tmp_path / "checkpoint")
    save(tmp_path / "next", torch.float16)
    with hftrace.trace() as recorded:
        load(tmp_path / "checkpoint")
        (tmp_path / "checkpoint").rename(tmp_path / "before")
        (tmp_path / "next").rename(tmp_path / "checkpoint")
    assert parameters(recorded.trace) == {("checkpoint", "float32"): PARAMETERS}


@pytest.mark.parametrize("how", ["deleted", "written over"])
def test_tensors_that_a_program_read_before_it_hands_them_over(tmp_path, how):
    path = tmp_path / "weights.safetensors"
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    save_file({name: each.detach().clone() for name, each in model.state_dict().items()}, path)
    with hftrace.trace() as recorded:
        tensors = load_file(path)
        if how == "deleted":
            path.unlink()
        else:
            os.replace(_half(tmp_path, tensors), path)
        model.load_state_dict(tensors)
    rows = [row for row in recorded.trace.tensors if row.kind == "parameter"]
    assert {(row.provenance, row.stored_dtype, row.file) for row in rows} == {
        ("checkpoint", "float32", "weights.safetensors")
    }


def _half(folder: Path, tensors) -> Path:
    path = folder / "half.safetensors"
    save_file({name: tensor.half() for name, tensor in tensors.items()}, path)
    return path


def test_what_is_wrong_with_a_file_that_was_deleted_since(tmp_path):
    save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    size = path.stat().st_size
    with hftrace.trace() as recorded:
        with pytest.raises(Exception):  # noqa: B017, PT011 (each version has its own)
            load(tmp_path)
        shutil.rmtree(tmp_path)
    (file,) = [file for file in recorded.trace.files if file.name == path.name]
    assert (file.result, file.damage) == ("damaged", "cut")
    assert (file.size_bytes, file.expected_bytes) == (size, size + 1000)


def test_a_repaired_file_is_not_called_damaged_and_the_broken_one_is(tmp_path):
    save(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    with hftrace.trace() as recorded:
        with pytest.raises(Exception):  # noqa: B017, PT011
            load(tmp_path)
        write_over(path, whole)
        load(tmp_path)
    first, second = (file for file in recorded.trace.files if file.name == path.name)
    assert (first.size_bytes, second.size_bytes) == (len(whole) - 1000, len(whole))
    assert (second.result, second.damage) == ("local", None)
    assert parameters(recorded.trace, recorded.trace.loads[1]) == {("checkpoint", "float32"): PARAMETERS}


class Changing(LlamaForCausalLM):
    """Somebody writes to the checkpoint while it is loaded."""

    path: Path
    calls = itertools.count()

    def tie_weights(self, *args, **kwargs):
        os.utime(self.path, ns=(1, next(self.calls)))
        return super().tie_weights(*args, **kwargs)


def test_a_file_that_changed_while_its_load_ran_is_no_source_of_claims(tmp_path):
    save(tmp_path)
    Changing.path = tmp_path / "model.safetensors"
    with hftrace.trace() as recorded:
        load(tmp_path, model_class=Changing)
    trace = recorded.trace
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert {(row.provenance, row.evidence) for row in rows} == {("unknown", "file_changed")}
    assert {row.provenance for row in trace.tensors if row.kind == "buffer"} <= {"computed"}
    assert weight_files(trace) == {"model.safetensors": ("changed", True)}
    (finding,) = [finding for finding in findings(trace) if finding.concerns == "weights"]
    assert (finding.rule, finding.name) == ("R29", "unread-files")
    assert "model.safetensors is not what it was" in finding.evidence


def test_weights_are_verified_against_the_file_that_was_loaded(tmp_path):
    save(tmp_path / "gone")
    save(tmp_path / "kept")
    path = tmp_path / "kept" / "model.safetensors"
    with hftrace.trace(verify=True) as recorded:
        models = [load(tmp_path / "gone"), load(tmp_path / "kept")]
        shutil.rmtree(tmp_path / "gone")
        write_over(path, path.read_bytes()[:-4] + b"\0\0\0\0")
    trace = recorded.trace
    assert len(models) == 2
    found = {
        made.request["model"]: {
            (row.verified, row.unverified)
            for row in trace.tensors
            if row.kind == "parameter" and row.load == made.span
        }
        for made in trace.loads
    }
    assert found == {str(tmp_path / "gone"): {(True, None)}, str(tmp_path / "kept"): {(None, "changed")}}


def test_descriptors_that_the_host_has_closed(tmp_path):
    """As a program does that becomes a daemon."""
    save(tmp_path / "one")
    save(tmp_path / "two", torch.float16)
    with hftrace.trace() as recorded:
        before = descriptors()
        load(tmp_path / "one")
        mine = {
            number for number in descriptors() - before if "one" in os.readlink(f"/proc/self/fd/{number}")
        }
        assert mine
        for number in mine:
            os.close(int(number))
        # The host's own, by the same numbers.
        theirs = [os.open(tmp_path / "two" / "model.safetensors", os.O_RDONLY) for _ in mine]
        shutil.rmtree(tmp_path / "one")
    assert all(os.read(number, 8) for number in theirs)
    for number in theirs:
        os.close(number)
    assert parameters(recorded.trace) == {("checkpoint", "float32"): PARAMETERS}


def test_many_loads_hold_few_files_open(tmp_path, monkeypatch):
    from hftrace.record import kept_files

    monkeypatch.setattr(kept_files, "MAX_DESCRIPTORS", 4)
    folders = [tmp_path / str(number) for number in range(8)]
    save(folders[0])
    for folder in folders[1:]:
        shutil.copytree(folders[0], folder)
    with hftrace.trace() as recorded:
        before = descriptors()
        for folder in folders:
            load(folder)
        assert len(descriptors() - before) <= 4 + 3  # and what tracing itself opens with the first load
        shutil.rmtree(tmp_path)
    assert parameters(recorded.trace) == {("checkpoint", "float32"): PARAMETERS * len(folders)}


VANISHING = """
import shutil
from transformers import LlamaForCausalLM

class Vanishing(LlamaForCausalLM):
    @classmethod
    def from_pretrained(cls, folder, **keywords):
        model = LlamaForCausalLM.from_pretrained(folder, **keywords)
        shutil.rmtree(folder)
        return model
"""


@pytest.mark.sparse
def test_what_another_process_makes_a_trace_of(tmp_path, run_cli):
    """The loading process is gone with its descriptors, and the folder too."""
    save(tmp_path / "model")
    (tmp_path / "vanishing.py").write_text(VANISHING)
    done = run_cli("load", tmp_path / "model", "--class", "vanishing:Vanishing", "-o", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(tmp_path / "out.json")
    assert parameters(trace) == {("checkpoint", "float32"): PARAMETERS}
    assert weight_files(trace) == {"model.safetensors": ("gone", None)}
    shown = run_cli("show", tmp_path / "out.json", "--view", "files").stdout
    assert "model.safetensors: gone since; the trace tells of what was loaded" in shown
    assert not list(tmp_path.glob(".hftrace-run-*"))


KILLED = """
import os, signal, sys, time
import hftrace
from transformers import LlamaForCausalLM

class Killed(LlamaForCausalLM):
    def __init__(self, config):
        os.kill(os.getpid(), signal.SIGKILL)

with hftrace.trace("out.json"):
    LlamaForCausalLM.from_pretrained(sys.argv[1])
    time.sleep(0.2)  # what was seen last may be lost
    Killed.from_pretrained(sys.argv[2])
"""


@pytest.mark.sparse
def test_a_journal_whose_checkpoints_have_changed_since(tmp_path, run_cli):
    """Of a load that had returned the header is there; of one that was killed nothing is made up."""
    save(tmp_path / "one")
    save(tmp_path / "two")
    save(tmp_path / "new", torch.float16)
    (tmp_path / "journals").mkdir()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "one", tmp_path / "two"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "journals")},
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for name in ("one", "two"):
        shutil.copy(tmp_path / "new" / "model.safetensors", tmp_path / name)
    done = run_cli("recover", tmp_path / "journals", "--delete", "-o", tmp_path / "recovered.json")
    assert (tmp_path / "recovered.json").exists(), done.stderr
    trace = hftrace.Trace.open(tmp_path / "recovered.json")
    first, second = trace.loads
    assert parameters(trace, first) == {("checkpoint", "float32"): PARAMETERS}
    assert parameters(trace, second) == {}
    unread = [file.unread for file in trace.files if file.shard is not None]
    # Up to 4.49 the loader looks for its weight files before it makes the model, and is handed them after.
    assert unread in ([None, True], [None])
    assert any(finding.name == "unread-files" for finding in findings(trace)) == (True in unread)
    assert list((tmp_path / "journals").iterdir()) == []
