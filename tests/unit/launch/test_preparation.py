"""Which files a load will read, and how they are made cold or warm before it."""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path

import pytest

from evictable import PAGE, evictable_file
from hftrace.launch import preparation
from hftrace.system import page_cache


def write(path: Path, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def names(model, **keywords):
    return [path.name for path in preparation.checkpoint_files(str(model), keywords)]


def sharded(folder: Path, shards: list[str], index: str = "model.safetensors.index.json") -> None:
    for shard in shards:
        write(folder / shard)
    weight_map = {f"tensor{number}": shard for number, shard in enumerate(shards * 2)}
    (folder / index).write_text(json.dumps({"weight_map": weight_map}))


def test_the_files_that_transformers_takes_first(tmp_path):
    write(tmp_path / "pytorch_model.bin")
    assert names(tmp_path) == ["pytorch_model.bin"]
    sharded(tmp_path, ["model-2.safetensors", "model-1.safetensors"])
    write(tmp_path / "optimizer.bin")
    assert names(tmp_path) == ["model-1.safetensors", "model-2.safetensors"]
    write(tmp_path / "model.safetensors")
    assert names(tmp_path) == ["model.safetensors"]
    assert names(tmp_path, use_safetensors=False) == ["pytorch_model.bin"]
    write(tmp_path / "model.fp16.safetensors")
    assert names(tmp_path, variant="fp16") == ["model.fp16.safetensors"]
    write(tmp_path / "some.gguf")
    assert names(tmp_path, gguf_file="some.gguf") == ["some.gguf"]


def test_a_subfolder_other_names_and_a_damaged_index(tmp_path):
    write(tmp_path / "inner" / "adapter_model.safetensors")
    assert names(tmp_path, subfolder="inner") == ["adapter_model.safetensors"]
    assert names(tmp_path) == []
    assert names(tmp_path / "not-there") == []
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    write(tmp_path / "weights.safetensors")
    assert names(tmp_path) == ["weights.safetensors"]
    sharded(tmp_path, ["there.safetensors"])
    (tmp_path / "there.safetensors").unlink()
    assert names(tmp_path) == [], "a shard that is missing is for the load to complain about"


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A Hub cache with one repository, a commit of two names, and blobs behind links."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "TRANSFORMERS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    repository = root / "models--some-org--a--model"
    write(repository / "blobs" / "cafe", 5000)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/cafe")
    (repository / "refs").mkdir()
    for ref in ("main", "v2"):
        (repository / "refs" / ref).write_text(COMMIT)
    return root


def test_a_repository_in_the_local_cache(cache, monkeypatch, tmp_path):
    for keywords in ({}, {"revision": "v2"}, {"revision": COMMIT}):
        (found,) = preparation.checkpoint_files("some-org/a--model", keywords)
        assert found.name == "cafe", keywords
        assert found.parent.name == "blobs"
    assert names("some-org/a--model", revision="v3") == []
    assert names("some-org/other") == []
    moved = tmp_path / "elsewhere"
    cache.rename(moved)
    assert names("some-org/a--model") == []
    assert names("some-org/a--model", cache_dir=str(moved)) == ["cafe"]
    for variable, value in {
        "HF_HUB_CACHE": moved,
        "HUGGINGFACE_HUB_CACHE": moved,
        "TRANSFORMERS_CACHE": moved,
    }.items():
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(value))
            assert names("some-org/a--model") == ["cafe"], variable
    (tmp_path / "hf").mkdir()
    moved.rename(tmp_path / "hf" / "hub")
    monkeypatch.setenv("HF_HOME", "$HOME/../hf")
    assert names("some-org/a--model") == ["cafe"]


def test_that_nothing_is_there_is_said(cache, tmp_path):
    facts = preparation.prepare("some-org/other", {}, "cold")
    assert (facts["files"], facts["bytes"], facts["resident_after"]) == (0, 0, None)
    assert facts["problem"].startswith("--cold found nothing of some-org/other in the local cache")
    (tmp_path / "empty").mkdir()
    facts = preparation.prepare(str(tmp_path / "empty"), {}, "warm")
    assert facts["problem"].startswith("--warm found no weight files in")


@pytest.fixture
def evictable(tmp_path):
    return evictable_file(tmp_path)


def test_a_system_that_does_not_tell(evictable, monkeypatch):
    monkeypatch.setattr(page_cache, "METHODS", ())
    facts = preparation.prepare(str(evictable.parent), {}, "cold")
    assert facts["resident_after"] is None
    assert facts["problem"].endswith("this system does not say what is in the page cache")


def test_cold_and_warm(evictable):
    facts = preparation.prepare(str(evictable.parent), {}, "warm")
    assert facts["problem"] is None
    assert (facts["files"], facts["bytes"]) == (1, 200 * PAGE + 7)
    assert (facts["resident_before"], facts["resident_after"]) == (0.0, 1.0)
    facts = preparation.prepare(str(evictable.parent), {}, "cold")
    assert facts["problem"] is None
    assert (facts["asked"], facts["resident_before"], facts["resident_after"]) == ("cold", 1.0, 0.0)
    assert facts["duration_ns"] > 0
    # Pages that have not been written out yet can be dropped all the same.
    evictable.write_bytes(bytes(100 * PAGE))
    assert preparation.prepare(str(evictable.parent), {}, "cold")["resident_after"] == 0.0


def test_a_file_that_someone_has_mapped_cannot_be_evicted_and_that_is_said(evictable):
    with open(evictable, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        sum(mapped[start] for start in range(0, len(mapped), PAGE))
        facts = preparation.prepare(str(evictable.parent), {}, "cold")
    assert facts["resident_after"] > 0.9
    assert facts["problem"].startswith("--cold could not evict 1 weight file of ")
    assert ": 100 % is still in the page cache (" in facts["problem"]


def test_a_system_without_the_call_goes_on_and_says_so(evictable, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise")
    page_cache.warm([evictable])
    problem = preparation.prepare(str(evictable.parent), {}, "cold")["problem"]
    assert "100 % is still in the page cache (this system has no call that drops a file" in problem
