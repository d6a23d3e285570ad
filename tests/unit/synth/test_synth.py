"""Plans, scaling, sharding, the hand-written files and the cache of ``hftrace synth``."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

from hftrace import units
from hftrace.cli.synth import command
from hftrace.errors import HftraceError, UsageError
from hftrace.synth import (
    ARCHITECTURES,
    cache_path,
    cached,
    plan,
    plan_config,
    write,
    write_many,
)
from hftrace.synth import values as values_module
from hftrace.synth import writer as writer_module
from hftrace.synth.architectures import SpecialTokens
from hftrace.synth.cache import is_complete
from hftrace.synth.tokenizer import byte_characters, token_ids, tokenizer_files

PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "tinyllama-1.1b": 1_100_048_384,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "qwen3-30b-a3b": 30_532_122_624,
    "gpt2": 124_439_808,
    "bert-base": 110_106_428,
    "t5-small": 60_506_624,
    "vit-base": 86_567_656,
    "whisper-tiny": 37_760_640,
}

TINY = "3MB"

DiskUsage = namedtuple("DiskUsage", "total used free")


# Sizes


# Plans


def test_every_architecture_has_its_parameter_count_here():
    assert set(PARAMETERS) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_count(name):
    planned = plan(name)
    assert planned.parameters == PARAMETERS[name]
    assert not planned.changes
    assert planned.config["torch_dtype"] == planned.dtype
    assert len({tensor.name for tensor in planned.tensors}) == len(planned.tensors)


@pytest.mark.parametrize(
    ("name", "published_bytes"),
    [
        # The size of model.safetensors on the Hub: names, shapes, header and padding all agree.
        ("bert-base", 440_449_768),
        ("t5-small", 242_043_056),
        ("whisper-tiny", 151_061_672),
        ("qwen2.5-0.5b", 988_097_824),
        ("llama-3.2-1b", 2_471_645_608),
    ],
)
def test_published_file_size(name, published_bytes):
    assert plan(name).safetensors_bytes == published_bytes


def test_tensor_names_are_those_of_published_checkpoints():
    names = {name: {tensor.name: tensor.shape for tensor in plan(name).tensors} for name in ARCHITECTURES}
    assert names["llama-2-7b"]["model.layers.31.mlp.down_proj.weight"] == (4096, 11008)
    assert "lm_head.weight" in names["llama-2-7b"]
    assert not any("inv_freq" in key for key in names["llama-2-7b"])
    assert "lm_head.weight" not in names["llama-3.2-1b"]
    assert names["mistral-7b"]["model.layers.0.self_attn.k_proj.weight"] == (1024, 4096)
    mixtral = names["mixtral-8x7b"]
    assert mixtral["model.layers.0.block_sparse_moe.experts.7.w2.weight"] == (4096, 14336)
    qwen = names["qwen3-30b-a3b"]
    assert qwen["model.layers.47.mlp.experts.127.gate_proj.weight"] == (768, 2048)
    assert qwen["model.layers.0.self_attn.q_proj.weight"] == (4096, 2048)
    assert qwen["model.layers.0.self_attn.q_norm.weight"] == (128,)
    assert names["gpt2"]["h.0.attn.c_attn.weight"] == (768, 2304)
    assert names["gpt2"]["h.0.attn.bias"] == (1, 1, 1024, 1024)
    assert "bert.embeddings.LayerNorm.gamma" in names["bert-base"]
    assert "cls.predictions.decoder.weight" not in names["bert-base"]
    assert "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight" in names["t5-small"]
    assert "proj_out.weight" not in names["whisper-tiny"]


def test_unknown_name_lists_the_known_ones_and_the_close_one():
    with pytest.raises(UsageError) as caught:
        plan("lama-2-7b")
    assert "Did you mean llama-2-7b?" in caught.value.message
    assert "whisper-tiny" in caught.value.message


def test_overrides_replace_published_values():
    planned = plan("llama-2-7b", overrides={"num_hidden_layers": 3})
    assert planned.config["num_hidden_layers"] == 3
    assert [change.key for change in planned.changes] == ["num_hidden_layers"]
    assert len(planned.tensors) == 3 * 9 + 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_layers": 3}, "has no 'num_layers'"),
        ({"hidden_size": "wide"}, "makes no sense"),
        ({"hidden_size": 0}, "the shape"),
    ],
)
def test_senseless_overrides_are_refused(overrides, message):
    with pytest.raises(UsageError, match=message):
        plan("llama-2-7b", overrides=overrides)


def test_unknown_dtype_is_refused():
    with pytest.raises(UsageError, match="float32, bfloat16, float16"):
        plan("gpt2", dtype="int4")


def test_plan_of_any_configuration():
    config = dict(plan("mistral-7b", size=TINY).config)
    planned = plan_config(config, name="mine")
    assert planned.name == "mine"
    assert planned.dtype == "bfloat16"
    assert planned.tensors == plan("mistral-7b", size=TINY).tensors
    with pytest.raises(UsageError, match="no layout is known for model_type 'mamba'"):
        plan_config({"model_type": "mamba"})
    with pytest.raises(UsageError, match="lacks 'hidden_size'"):
        plan_config({"model_type": "llama", "num_attention_heads": 2})


# Scaling


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", ["8MB", "25MB", "100MB", "500MB", "1500MB", "4GB", "20GB"])
def test_scaling_reaches_the_target_within_a_tenth(name, size):
    target = units.parse_size(size)
    full = plan(name)
    planned = plan(name, size=size)
    if target >= full.data_bytes:
        assert planned.tensors == full.tensors
        return
    assert planned.is_near_target
    assert abs(planned.data_bytes / target - 1) <= 0.1


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("size", ["4MB", "60MB", "300MB", "2GB"])
def test_scaled_configurations_are_consistent(name, size):
    published, scaled = plan(name).config, plan(name, size=size).config

    def value(*keys):
        return next(scaled[key] for key in keys if key in scaled)

    heads = value("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads")
    hidden = value("hidden_size", "n_embd", "d_model")
    assert heads >= 2
    assert value("num_hidden_layers", "n_layer", "num_layers") >= 2
    assert hidden % heads == 0
    assert heads % scaled.get("num_key_value_heads", 1) == 0
    published_heads = next(
        published[key]
        for key in ("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads")
        if key in published
    )
    published_hidden = next(
        published[key] for key in ("hidden_size", "n_embd", "d_model") if key in published
    )
    assert hidden / heads == published_hidden / published_heads
    assert scaled.get("head_dim") == published.get("head_dim")
    for key, token in scaled.items():
        if key.endswith("_token_id") and "vocab_size" in scaled:
            assert 0 <= token < scaled["vocab_size"]


@pytest.mark.parametrize("name", ["mistral-7b", "qwen3-30b-a3b", "llama-3.2-1b"])
@pytest.mark.parametrize("size", ["700MB", "1500MB", "3GB"])
def test_query_heads_share_key_and_value_heads_as_published(name, size):
    published, scaled = plan(name).config, plan(name, size=size).config
    group = published["num_attention_heads"] // published["num_key_value_heads"]
    assert scaled["num_attention_heads"] == group * scaled["num_key_value_heads"]


def test_layers_go_first_then_the_width_and_the_vocabulary_last():
    keys = {
        size: {change.key for change in plan("llama-2-7b", size=size).changes}
        for size in ("4GB", "500MB", TINY)
    }
    assert keys["4GB"] == {"num_hidden_layers"}
    assert {"num_hidden_layers", "hidden_size"} <= keys["500MB"]
    assert "vocab_size" not in keys["500MB"]
    assert "vocab_size" in keys[TINY]


def test_a_size_out_of_reach_gives_the_nearest():
    planned = plan("mixtral-8x7b", size="1kB")
    assert not planned.is_near_target
    assert planned.config["num_hidden_layers"] == 2
    assert plan("gpt2", size="1TB").data_bytes == plan("gpt2").data_bytes


# Shards


@pytest.mark.parametrize("name", ["llama-2-7b", "qwen3-30b-a3b", "gpt2"])
def test_shards_respect_the_maximum_and_hold_every_tensor_once(name):
    limit = 2_000_000
    planned = plan(name, size="20MB", max_shard_size=limit)
    assert len(planned.shards) > 2
    for shard in planned.shards:
        assert shard.data_bytes <= limit or len(shard.tensors) == 1
        assert shard.data_bytes == sum(tensor.elements for tensor in shard.tensors) * planned.element_bytes
    names = [tensor.name for shard in planned.shards for tensor in shard.tensors]
    assert sorted(names) == sorted(tensor.name for tensor in planned.tensors)
    assert planned.data_bytes == sum(shard.data_bytes for shard in planned.shards)


def test_published_sharding_of_a_large_model():
    planned = plan("llama-2-7b")
    assert [planned.file_name(index) for index in range(3)] == [
        f"model-0000{index}-of-00003.safetensors" for index in (1, 2, 3)
    ]
    assert plan("gpt2").file_name(0) == "model.safetensors"
    assert plan("gpt2").file_name(0, "bin") == "pytorch_model.bin"


# Files


def read_header(path):
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return length, json.loads(file.read(length))


def test_header_is_laid_out_as_the_library_does_it(tmp_path):
    planned = plan("mixtral-8x7b", size=TINY, max_shard_size="1MB")
    write(planned, tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == planned.data_bytes
    assert set(index["weight_map"]) == {tensor.name for tensor in planned.tensors}
    for number, shard in enumerate(planned.shards):
        path = tmp_path / planned.file_name(number)
        length, header = read_header(path)
        assert length % 8 == 0
        assert header.pop("__metadata__") == {"format": "pt"}
        assert list(header) == sorted(header)
        end = 0
        for entry in header.values():
            assert entry["data_offsets"][0] == end
            end = entry["data_offsets"][1]
        assert end == shard.data_bytes
        assert path.stat().st_size == 8 + length + end


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_values_are_readable_finite_and_different(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors")
    planned = plan("gpt2", size=TINY, dtype=dtype)
    write(planned, tmp_path)
    seen = set()
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == {tensor.name for tensor in planned.tensors}
        for spec in planned.tensors:
            tensor = file.get_tensor(spec.name)
            assert tuple(tensor.shape) == spec.shape
            assert tensor.dtype is getattr(torch, dtype)
            values = tensor.float()
            assert torch.isfinite(values).all()
            if spec.fill == "ones":
                assert (values == 1).all()
            elif spec.fill == "mask":
                assert torch.equal(values[0, 0], torch.tril(torch.ones(spec.shape[-2:])))
            else:
                # Not so for its neighbours in the block, hence no closer bound.
                assert values.abs().max() < 0.2
                assert spec.elements < 1000 or values.std().item() == pytest.approx(0.02, rel=0.2)
                seen.add(tuple(values.reshape(-1)[:64].tolist()))
    assert len(seen) == sum(spec.fill == "normal" for spec in planned.tensors)


def test_the_seed_decides_the_bytes(tmp_path):
    planned = plan("bert-base", size=TINY)
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        write(planned, tmp_path / str(number), seed=seed)
        digests.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_a_tensor_does_not_depend_on_the_shards(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    name = "encoder.block.1.layer.0.SelfAttention.q.weight"
    write(plan("t5-small", size=TINY), tmp_path / "one")
    many = plan("t5-small", size=TINY, max_shard_size="500kB")
    write(many, tmp_path / "many")
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    with safetensors.safe_open(tmp_path / "one" / "model.safetensors", framework="pt") as file:
        one = file.get_tensor(name)
    with safetensors.safe_open(tmp_path / "many" / index["weight_map"][name], framework="pt") as file:
        assert file.get_tensor(name).equal(one)


def test_bin_holds_the_same_values(tmp_path):
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors")
    planned = plan("qwen2.5-0.5b", size="5MB", max_shard_size="1MB")
    written = write(planned, tmp_path / "bin", format="bin")
    write(planned, tmp_path / "safetensors")
    assert "pytorch_model.bin.index.json" in written.files
    assert not any("safetensors" in name for name in written.files)
    for index in range(len(planned.shards)):
        state = torch.load(tmp_path / "bin" / planned.file_name(index, "bin"), weights_only=True)
        with safetensors.safe_open(
            tmp_path / "safetensors" / planned.file_name(index), framework="pt"
        ) as file:
            assert set(state) == set(file.keys())
            for name, tensor in state.items():
                assert tensor.dtype is torch.bfloat16
                assert torch.equal(tensor, file.get_tensor(name))


def test_a_tensor_larger_than_the_block_repeats_no_row(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors")
    monkeypatch.setattr(values_module, "_BLOCK_BYTES", 300_000)
    planned = plan("whisper-tiny", size="10MB")
    write(planned, tmp_path)
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        tensor = file.get_tensor("model.decoder.embed_tokens.weight")
    assert tensor.numel() > 300_000 / 4
    assert len(tensor.unique(dim=0)) == len(tensor)


def test_small_files(tmp_path):
    written = write(plan("t5-small", size=TINY), tmp_path / "t5")
    assert written.files == (
        "model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
    )
    assert written.file_bytes == sum(path.stat().st_size for path in (tmp_path / "t5").iterdir())
    generation = json.loads((tmp_path / "t5" / "generation_config.json").read_text())
    assert generation["decoder_start_token_id"] == 0
    assert "generation_config.json" not in write(plan("bert-base", size=TINY), tmp_path / "bert").files
    assert "preprocessor_config.json" in write(plan("vit-base", size=TINY), tmp_path / "vit").files


def test_progress_is_told_and_ends_at_the_total(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "_PROGRESS_BYTES", 100_000)
    planned = plan("gpt2", size=TINY)
    told = []
    write(planned, tmp_path, progress=lambda done, total: told.append((done, total)))
    assert len(told) > 5
    assert told == sorted(told)
    assert told[-1] == (planned.data_bytes, planned.data_bytes)


def test_a_directory_in_use_is_refused_unless_forced(tmp_path):
    write(plan("gpt2", size=TINY, max_shard_size="1MB"), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    planned = plan("bert-base", size=TINY)
    with pytest.raises(UsageError, match="is not empty"):
        write(planned, tmp_path)
    written = write(planned, tmp_path, force=True)
    assert {path.name for path in tmp_path.iterdir()} == {*written.files, "notes.txt"}


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a directory"):
        write(plan("gpt2", size=TINY), tmp_path / "file")
    with pytest.raises(HftraceError, match="cannot write the checkpoint"):
        write(plan("gpt2", size=TINY), tmp_path / "file" / "below")


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "_PROGRESS_BYTES", 100_000)

    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(plan("gpt2", size=TINY, max_shard_size="500kB"), tmp_path / "new" / "model", progress=stop)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_found_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module.shutil, "disk_usage", lambda path: DiskUsage(10**9, 10**9, 10**6))
    with pytest.raises(HftraceError, match=r"takes 13\.5 GB, and only 1\.00 MB are free") as caught:
        write(plan("llama-2-7b"), tmp_path / "new")
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tensors", [12, 1000, 3000])
def test_many_small_tensors(tmp_path, tensors):
    written = write_many(tmp_path, tensors, max_shard_size="1MB")
    index = tmp_path / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text())["weight_map"])
    else:
        names = set(read_header(tmp_path / "model.safetensors")[1]) - {"__metadata__"}
    assert abs(len(names) - tensors) < 9
    assert written.file_bytes < 3000 * tensors + 200_000


def test_too_few_tensors_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least 12"):
        write_many(tmp_path, 5)


# Tokenizer


def test_every_byte_has_its_character():
    characters = byte_characters()
    assert len(set(characters)) == 256
    assert characters[ord("a")] == "a"
    assert characters[ord(" ")] == "Ġ"


@pytest.mark.parametrize("name", [name for name, known in ARCHITECTURES.items() if known.tokens])
def test_tokenizer_has_no_holes_and_small_published_ids(name):
    tokens = ARCHITECTURES[name].tokens
    files = tokenizer_files(tokens, 100_000, 512)
    vocabulary = files["tokenizer.json"]["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(256 + len(tokens.ids)))
    for token, place in tokens.ids.items():
        assert vocabulary[token] == token_ids(tokens)[token]
        assert place >= 256 or vocabulary[token] == place
    assert set(tokens.roles.values()) <= set(tokens.ids)


def test_a_vocabulary_too_small_for_bytes_gets_no_tokenizer():
    assert tokenizer_files(SpecialTokens(ids={"<s>": 0}, roles={}), 200, None) == {}


# Cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HFTRACE_CACHE", str(tmp_path))
    return tmp_path / "synth"


def entries(cache):
    return sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


def test_cached_writes_once(cache):
    told = []
    first = cached("gpt2", TINY, progress=lambda *numbers: told.append(numbers))
    assert told
    assert first.parent == cache
    assert first.name.startswith("gpt2-3MB-float32-safetensors-")
    assert entries(cache) == [first.name]
    before = (first / "config.json").stat().st_mtime_ns
    assert cached("gpt2", TINY, progress=lambda *numbers: pytest.fail("written twice")) == first
    assert (first / "config.json").stat().st_mtime_ns == before
    assert cached("gpt2", TINY, force=True) == first
    assert (first / "config.json").stat().st_mtime_ns != before
    assert entries(cache) == [first.name]


def test_what_decides_the_bytes_decides_the_place(cache):
    base = plan("gpt2", TINY)
    places = {
        cache_path(base),
        cache_path(base, seed=1),
        cache_path(base, format="bin"),
        cache_path(plan("gpt2", TINY, dtype="float16")),
        cache_path(plan("gpt2", "4MB")),
        cache_path(plan("gpt2", TINY, max_shard_size="1MB")),
        cache_path(plan("gpt2", TINY, overrides={"n_layer": 1})),
    }
    assert len(places) == 7
    assert cache_path(plan("gpt2")).name.startswith("gpt2-full-float32")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("HFTRACE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path(plan("gpt2")).parent == tmp_path / "hftrace" / "synth"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_path(plan("gpt2")).parent == tmp_path / ".cache" / "hftrace" / "synth"


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest"])
def test_a_damaged_checkpoint_is_written_again(cache, damage):
    path = cached("gpt2", TINY)
    if damage == "truncate":
        os.truncate(path / "model.safetensors", 1000)
    elif damage == "remove":
        (path / "config.json").unlink()
    else:
        (path / "hftrace-synth.json").write_text("{")
    assert not is_complete(path)
    assert cached("gpt2", TINY) == path
    assert is_complete(path)
    assert entries(cache) == [path.name]


def test_an_interrupted_write_is_not_complete(cache):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("gpt2", TINY, progress=stop)
    assert entries(cache) == []


KILLED = """
import os, signal, sys
from hftrace.synth import cached
cached("gpt2", "3MB", progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_what_a_killed_process_left_is_cleared(cache):
    killed = subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(entries(cache)) == 1
    assert entries(cache)[0].endswith(".tmp")
    path = cached("gpt2", TINY)
    assert is_complete(path)
    assert entries(cache) == [path.name]


RACING = """
from hftrace.synth import cached
told = []
print(cached("gpt2", "3MB", progress=lambda *numbers: told.append(numbers)))
print(bool(told))
"""


def test_processes_that_race_write_it_once(cache):
    racing = [
        subprocess.Popen([sys.executable, "-c", RACING], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [process.communicate()[0].split() for process in racing]
    assert [process.returncode for process in racing] == [0, 0, 0]
    assert {output[0] for output in outputs} == {str(cache_path(plan("gpt2", TINY)))}
    assert sorted(output[1] for output in outputs) == ["False", "False", "True"]
    assert len(entries(cache)) == 1


def test_a_cache_that_cannot_be_written_is_said_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HFTRACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(HftraceError, match="HFTRACE_CACHE names another place"):
        cached("gpt2", TINY)


# The command


def run(*arguments):
    return CliRunner().invoke(command, arguments)


def test_command_writes_and_says_so(tmp_path):
    result = run("llama-2-7b", "--size", TINY, "-o", str(tmp_path / "model"))
    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last.startswith(f"Wrote llama-2-7b to {tmp_path / 'model'}: ")
    assert "parameters" in last
    assert "in 1 shard," in last
    assert "num_hidden_layers 32 -> 2" in result.stdout
    assert "of the 3.00 MB asked for" in result.stdout
    assert (tmp_path / "model" / "config.json").exists()
    again = run("llama-2-7b", "--size", TINY, "-o", str(tmp_path / "model"))
    assert isinstance(again.exception, UsageError)
    assert run("llama-2-7b", "--size", TINY, "-o", str(tmp_path / "model"), "--force").exit_code == 0


@pytest.mark.parametrize(
    "settings",
    [{"num_hidden_layers": 8}, {"hidden_size": 512}, {"num_attention_heads": 16}, {"intermediate_size": 999}],
)
def test_what_the_caller_sets_is_not_scaled(settings):
    planned = plan("llama-2-7b", "60MB", overrides=settings)
    assert {key: planned.config[key] for key in settings} == settings
    assert planned.data_bytes < 13e9 / 10


def test_command_says_first_what_it_cannot_reach(tmp_path):
    near = run("llama-2-7b", "--size", "10MB", "--set", "vocab_size=32000", "-o", str(tmp_path / "near"))
    assert near.exit_code == 0
    assert near.stdout.startswith("Size: +259.3% of the 10.0 MB asked for, the nearest")
    far = run("llama-2-7b", "--size", "1KB", "-o", str(tmp_path / "far"))
    assert isinstance(far.exception, UsageError)
    assert "cannot be scaled to 1.00 kB: the smallest that hftrace finds is" in far.exception.message
    assert not (tmp_path / "far").exists()


def test_command_json(cache):
    arguments = ("gpt2", "--size", TINY, "--max-shard-size", "1MB", "--set", "n_ctx=512", "--json")
    result = json.loads(run(*arguments).stdout)
    assert (
        result["parameters"] == plan("gpt2", TINY, max_shard_size="1MB", overrides={"n_ctx": 512}).parameters
    )
    assert result["cached"] is False
    assert result["changes"]["n_layer"] == {"published": 12, "written": 2}
    assert [Path(result["directory"], name).stat().st_size > 0 for name in result["files"]]
    assert math.isclose(result["data_bytes"], result["target_bytes"], rel_tol=0.1)
    assert json.loads(run(*arguments).stdout)["cached"] is True
    assert (
        run("gpt2", "--size", TINY, "--max-shard-size", "1MB", "--set", "n_ctx=512")
        .stdout.splitlines()[-1]
        .startswith("Found gpt2 in ")
    )


def test_command_lists_names():
    lines = run("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(ARCHITECTURES)
    assert "6,738,415,616" in lines[1]
    rows = json.loads(run("--list", "--json").stdout)
    assert {row["name"]: row["parameters"] for row in rows} == PARAMETERS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--list names them"),
        (("gpt3",), "Did you mean gpt2?"),
        (("gpt2", "--size", "big"), "is not a size"),
        (("gpt2", "--set", "n_ctx"), "KEY=VALUE"),
    ],
)
def test_command_refuses(arguments, message):
    result = run(*arguments)
    assert isinstance(result.exception, UsageError)
    assert message in result.exception.message


def test_help_and_list_import_neither_torch_nor_numpy():
    code = (
        "import sys\nfrom hftrace.cli.main import main\n"
        "try:\n    main(['synth', '--list'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
