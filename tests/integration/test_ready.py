"""``--cold``, ``--warm``, ``--touch``, ``--forward``, ``--release``: real loads, and what storage gave."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import command, environment
from rich.console import Console

import hftrace
from hftrace.analysis.summary import summary
from hftrace.record.child.inputs import build_inputs
from hftrace.record.child.ready import Readiness
from hftrace.record.recorder import Recorder
from hftrace.render.views import spans
from hftrace.render.views.options import ViewOptions
from hftrace.render.views.summary import labelled_facts
from hftrace.replay.trace import replay
from hftrace.synth import plan, write
from hftrace.system.memory import HostMemory
from hftrace.system.page_cache import evict, resident

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.sparse, pytest.mark.filterwarnings("default")]

STORAGE_BYTES = 400_000_000
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
TINY_CODER = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("ready")


@pytest.fixture(scope="module")
def runs(place):
    """Every command, two at a time; the two on the large checkpoint one after the other, in their order."""
    tiny, large = place / "tiny", place / "large"
    write(plan("llama-2-7b", size="5MB", max_shard_size="2MB"), tiny)
    write(plan("llama-2-7b", size="400MB", max_shard_size="120MB"), large)
    home = place / "home"
    snapshot = home / "hub" / "models--some--model" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny, snapshot)
    (home / "hub" / "models--some--model" / "refs").mkdir()
    (home / "hub" / "models--some--model" / "refs" / "main").write_text("0" * 40)
    layers = {"model.embed_tokens": "cpu", "model.norm": "cpu", "lm_head": "cpu", "model.rotary_emb": "cpu"}
    layers |= {
        f"model.layers.{index}": "disk"
        for index in range(json.loads((tiny / "config.json").read_text())["num_hidden_layers"])
    }
    (place / "inputs.json").write_text('{"input_ids": [[1, 2, 3]], "use_cache": false}')
    table = {
        # In the stored dtype every version maps the weights; with a cast the load itself reads them.
        "cold": [large, "--cold", "--touch", "--dtype", "auto"],
        "warm": [large, "--warm", "--touch", "--dtype", "auto"],
        "all": [tiny, "--touch", "--forward", "--release"],
        "info": [
            tiny, "--kwarg", "output_loading_info=true", "--input", place / "inputs.json", "--release",
        ],
        "wrong": [tiny, "--input", '{"input_ids": [[1, 2], [3]]}', "--touch"],
        "disk": [
            tiny, "--device-map", json.dumps(layers), "--offload-folder", "offloaded", "--touch", "--forward",
        ],
        "hub": ["some/model", "--cold", "--forward"],
    }  # fmt: skip
    env = environment({"HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": "1"})

    def run(*chosen):
        return [
            command("load", *table[name], "-o", "out.json", "-q", cwd=place / f"run-{name}", env=env)
            for name in chosen
        ]

    groups = [("cold", "warm"), *((name,) for name in table if name not in ("cold", "warm"))]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda group: run(*group), groups))
    return {
        name: done
        for group, made in zip(groups, results, strict=True)
        for name, done in zip(group, made, strict=True)
    }


def opened(run):
    assert run.code == 0, run.stderr
    trace = hftrace.Trace.open(run.cwd / "out.json")
    assert not trace.header["errors"]
    assert trace.outcome["status"] == "ok"
    return trace


def roots(trace):
    """The root spans after the imports, by phase."""
    return {span.phase: span for span in trace.spans if span.parent is None and span.phase != "import"}


def facts(trace):
    return dict(labelled_facts(trace))


def draw_spans(trace):
    console = Console(width=140)
    with console.capture() as captured:
        console.print(*spans.draw(trace, ViewOptions()))
    return captured.get()


@pytest.fixture(scope="module")
def storage(place):
    """Skips where what is read from storage does not show in a process's counter, or files stay cached."""
    probe = place / "probe"
    probe.write_bytes(os.urandom(4 << 20))
    memory = HostMemory()
    try:
        before = memory.current().storage_read
        if before is None:
            pytest.skip("this kernel does not count what a process reads from storage (/proc/self/io)")
        evict([probe])
        left = resident([probe])
        if left is None:
            pytest.skip("this system does not say what is in the page cache")
        if left > 0.05:
            pytest.skip("this file system keeps its files in memory: nothing can be evicted")
        assert len(probe.read_bytes()) == 4 << 20
        if memory.current().storage_read - before < 4 << 20:
            pytest.skip("this file system does not count what is read from it (overlay, network)")
    finally:
        memory.close()


def test_of_a_cold_checkpoint_load_and_touch_read_all_bytes_from_storage(storage, runs):
    trace = opened(runs["cold"])
    size = sum(file.size_bytes for file in trace.files if file.shard is not None)
    assert size > STORAGE_BYTES
    cache = trace.request["cache"]
    assert (cache["asked"], cache["files"], cache["bytes"]) == ("cold", 4, size)
    assert cache["resident_after"] <= 0.05
    assert cache["problem"] is None
    assert not runs["cold"].complaints
    spans = roots(trace)
    read = spans["load"].storage_read_bytes + spans["touch"].storage_read_bytes
    # The imports of the architecture may come from storage as well.
    assert size <= read <= size * 1.05, (size, read)
    assert spans["touch"].attributes["bytes"] == pytest.approx(size, rel=0.001)
    assert summary(trace)["cache"] == "cold"
    assert facts(trace)["read"].endswith("cold cache")
    screen = draw_spans(trace)
    assert "storage" in screen.splitlines()[1]
    assert "storage: bytes that the process fetched from storage during the span" in screen


def test_of_a_warm_checkpoint_they_read_next_to_nothing(storage, runs):
    trace = opened(runs["warm"])
    cache = trace.request["cache"]
    assert cache["asked"] == "warm"
    assert cache["resident_after"] >= 0.95
    assert cache["problem"] is None
    spans = roots(trace)
    read = spans["load"].storage_read_bytes + spans["touch"].storage_read_bytes
    assert read < 0.02 * cache["bytes"]
    assert summary(trace)["cache"] == "warm"


def test_touch_makes_the_whole_checkpoint_resident(runs):
    for name in ("cold", "warm"):
        touch = roots(opened(runs[name]))["touch"]
        if None in (touch.rss_anon_bytes, touch.rss_file_bytes):
            pytest.skip("this system does not say what memory a process has")
        # Wherever the weights are, in the process they are now: as file-backed pages or as copies.
        before = roots(opened(runs[name]))["load"]
        held = touch.rss_anon_bytes + touch.rss_file_bytes
        assert held - before.rss_anon_start_bytes - before.rss_file_start_bytes > STORAGE_BYTES


def test_touch_forward_and_release_follow_the_load(runs):
    trace = opened(runs["all"])
    spans = roots(trace)
    assert list(spans) == ["load", "touch", "forward", "release"]
    ordered = list(spans.values())
    for first, second in itertools.pairwise(ordered):
        assert first.end_ns <= second.start_ns
    assert all(span.status == "ok" for span in ordered)
    assert all(span.rss_peak_bytes is not None for span in ordered) or os.name != "posix"
    weights = sum(row.bytes for row in trace.tensors if row.device == "cpu" and row.provenance != "tied")
    assert spans["touch"].attributes["bytes"] == weights
    assert spans["touch"].attributes["tensors"] == len(
        [row for row in trace.tensors if row.kind in ("parameter", "buffer") and row.provenance != "tied"]
    )
    assert spans["forward"].name == "LlamaForCausalLM.forward"
    assert spans["forward"].attributes["inputs"] == {"input_ids": "int64[1, 8]"}
    assert spans["forward"].attributes["returned"] == "CausalLMOutputWithPast"
    assert spans["release"].attributes["freed"] is True
    for kind in ("kept_anon_bytes", "kept_file_bytes"):
        assert 0 <= spans["release"].attributes[kind] < 300e6
    made = summary(trace)
    parts = [spans[phase].duration_ns for phase in ("load", "touch", "forward")]
    assert made["ready_ns"] == sum(parts)
    assert made["returned_ns"] == parts[0]
    assert made["ready_ns"] <= spans["forward"].end_ns - spans["load"].start_ns
    assert made["attributed"] > 0.9
    assert [name for name in facts(trace) if name != "limit"][:3] == ["took", "ready", "release"]
    assert not runs["all"].complaints


def test_a_tuple_and_inputs_from_a_file(runs):
    spans = roots(opened(runs["info"]))
    assert list(spans) == ["load", "forward", "release"]
    assert spans["forward"].status == "ok", spans["forward"].attributes
    assert spans["forward"].attributes["inputs"] == {"input_ids": "int64[1, 3]", "use_cache": "bool"}
    assert spans["release"].attributes["freed"] is True


def test_a_forward_that_fails_is_no_load_that_fails(runs):
    trace = opened(runs["wrong"])
    spans = roots(trace)
    assert (spans["touch"].status, spans["forward"].status) == ("ok", "error")
    assert "input_ids of --input is no list that makes a tensor" in spans["forward"].attributes["error"]
    (complaint,) = runs["wrong"].complaints
    assert complaint.startswith("hftrace: --forward failed, the load did not: input_ids of --input")
    assert summary(trace)["ready_ns"] is None
    assert facts(trace)["ready"].startswith("not known: returned after ")


def test_weights_on_disk_come_in_through_the_hooks(runs):
    spans = roots(opened(runs["disk"]))
    assert spans["forward"].status == "ok", spans["forward"].attributes
    assert spans["forward"].attributes["device"] == "cpu"
    assert spans["touch"].attributes["elsewhere"]["meta"] > 0
    assert 0 < spans["touch"].attributes["bytes"] < 5_000_000


def test_the_files_of_a_repository_are_found_in_the_local_cache(storage, runs):
    trace = opened(runs["hub"])
    cache = trace.request["cache"]
    assert cache["files"] == len([file for file in trace.files if file.shard is not None])
    assert cache["resident_after"] <= 0.05
    assert summary(trace)["cache"] == "cold"


def test_wrong_usage(place, run_cli):
    tiny = place / "usage"
    write(plan("llama-2-7b", size="1MB"), tiny)
    (place / "list.json").write_text("[1]")
    for arguments, words in {
        ("--cold", "--warm"): "--cold and --warm are opposites",
        ("--input", "[[1]]"): "--input must be a JSON object",
        ("--input", place / "not-there.json"): "cannot read the inputs",
        ("--input", place / "list.json"): "list.json must be a JSON object",
    }.items():
        done = run_cli("load", tiny, *arguments)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


# -- inputs for every kind of model -------------------------------------------------------------------


def two_towers():
    text = {**TINY, "vocab_size": 99}
    vision = {**TINY, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return transformers.CLIPModel(config)


def whisper():
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    config = transformers.WhisperConfig(
        vocab_size=99,
        max_source_positions=50,
        max_target_positions=20,
        num_mel_bins=20,
        **TINY_CODER,
        **tokens,
    )
    return transformers.WhisperForConditionalGeneration(config)


def sound():
    config = transformers.Wav2Vec2Config(
        **TINY,
        vocab_size=99,
        conv_dim=(32,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    return transformers.Wav2Vec2ForCTC(config)


def half_precision_vision():
    config = transformers.ViTConfig(**TINY, image_size=[32, 48], patch_size=8, num_channels=1)
    return transformers.ViTForImageClassification(config).to(torch.bfloat16)


MADE = {
    "two towers": (two_towers, {"input_ids": "int64[1, 8]", "pixel_values": "float32[1, 3, 32, 32]"}),
    "whisper": (whisper, {"input_features": "float32[1, 20, 100]", "decoder_input_ids": "int64[1, 8]"}),
    "sound": (sound, {"input_values": "float32[1, 16000]"}),
    "vision": (half_precision_vision, {"pixel_values": "bfloat16[1, 1, 32, 48]"}),
}
SYNTHETIC = {
    "gpt2": ("AutoModelForCausalLM", {"input_ids": "int64[1, 8]"}),
    "bert-base": ("AutoModelForMaskedLM", {"input_ids": "int64[1, 8]"}),
    "t5-small": (
        "AutoModelForSeq2SeqLM",
        {"input_ids": "int64[1, 8]", "decoder_input_ids": "int64[1, 8]"},
    ),
    "vit-base": ("AutoModelForImageClassification", {"pixel_values": "float32[1, 3, 224, 224]"}),
}


def after_load(folder, made, **request):
    """Does in this process what the loading process does after a load; returns the spans by phase."""
    held = [made]
    recorder = Recorder(folder)
    recorder.start()
    try:
        readiness = Readiness(recorder, request)
        readiness.run(held)
    finally:
        recorder.stop()
        recorder.memory.close()
    assert held == ([] if request.get("release") else [made])
    return roots(replay(folder))


@pytest.mark.parametrize("name", [*MADE, *SYNTHETIC])
def test_forward_of_text_vision_speech_and_two_towers(name, tmp_path):
    if name in MADE:
        make, expected = MADE[name]
        model = make().eval()
    else:
        auto, expected = SYNTHETIC[name]
        write(plan(name, size="5MB"), tmp_path / "checkpoint")
        model = getattr(transformers, auto).from_pretrained(tmp_path / "checkpoint").eval()
    # Before the forward pass: the model's own code may ask for random numbers in it (layerdrop).
    state = torch.get_rng_state()
    build_inputs(model)
    assert torch.equal(torch.get_rng_state(), state)
    spans = after_load(tmp_path, model, touch=True, forward=True)
    forward = spans["forward"]
    assert forward.status == "ok", forward.attributes
    shown = forward.attributes["inputs"]
    if name == "vit-base":
        # Its image size shrinks with the model.
        assert list(shown) == ["pixel_values"]
    else:
        assert shown == expected
    assert spans["touch"].attributes["bytes"] >= sum(
        value.nbytes for value in {value.data_ptr(): value for value in model.parameters()}.values()
    )


class Strange(torch.nn.Module):
    """One storage under a view, a tie, a byte tensor, an empty one and a piece of another with a gap."""

    def __init__(self):
        super().__init__()
        base = torch.arange(40_000, dtype=torch.uint8)
        self.packed = torch.nn.Parameter(base[100:20_000], requires_grad=False)
        self.overlapping = torch.nn.Parameter(base[10_000:30_000], requires_grad=False)
        self.weight = torch.nn.Parameter(torch.ones(64, 64).t())
        self.tied = self.weight
        self.register_buffer("empty", torch.empty(0, 5))
        self.register_buffer("scalar", torch.tensor(3.0))
        self.register_buffer("shape_only", torch.empty(8, device="meta"))

    def forward(self, wanted, other=None):
        return wanted


def test_touch_counts_every_byte_once_and_strange_signatures_are_explained(tmp_path):
    model = Strange()
    model.config = None
    spans = after_load(tmp_path, model, touch=True, forward=True)
    assert spans["touch"].status == "ok", spans["touch"].attributes
    touched = {"bytes": (30_000 - 100) + 64 * 64 * 4 + 4, "tensors": 5, "elsewhere": {"meta": 1}}
    assert touched.items() <= spans["touch"].attributes.items()
    assert spans["forward"].attributes["error"] == (
        "Strange wants wanted, which cannot be built from its config: give all inputs with --input"
    )


class Packed(torch.Tensor):
    """A quantised weight as torchao makes it: no storage of its own, the data in two plain tensors."""

    @staticmethod
    def __new__(cls, data, scale):
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, dtype=torch.float32, device="cpu")

    def __init__(self, data, scale):
        self.data_bytes, self.scale = data, scale

    def __tensor_flatten__(self):
        return ["data_bytes", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        assert function is torch.ops.aten.detach.default, "nobody computes with it"
        return cls(args[0].data_bytes, args[0].scale)


def test_touch_reaches_what_is_inside_of_a_wrapped_tensor(tmp_path):
    model = torch.nn.Module()
    packed = Packed(torch.ones(5000, dtype=torch.uint8), torch.ones(10))
    model.weight = torch.nn.Parameter(packed, requires_grad=False)
    touch = after_load(tmp_path, model, touch=True)["touch"]
    assert {"bytes": 5000 + 40, "tensors": 2}.items() <= touch.attributes.items()


def test_given_numbers_become_tensors_of_the_models_dtype(tmp_path):
    model = Strange().to(torch.bfloat16)
    given = {"wanted": [[0.5, 1]], "other": [[True]]}
    spans = after_load(tmp_path, model, forward=True, inputs=given)
    assert spans["forward"].attributes["inputs"] == {"wanted": "bfloat16[1, 2]", "other": "bool[1, 1]"}


def test_what_is_no_model_is_said_to_be_none(tmp_path):
    spans = after_load(tmp_path, transformers.BertConfig(), touch=True, forward=True, release=True)
    for phase in ("touch", "forward"):
        assert spans[phase].status == "error"
        assert spans[phase].attributes["error"].endswith("BertConfig, which is no torch.nn.Module")
    assert spans["release"].status == "ok"


def test_a_release_that_is_held_up_says_so(tmp_path):
    model = Strange()
    spans = after_load(tmp_path, model, release=True)
    assert spans["release"].attributes["freed"] is False
    assert spans["release"].status == "ok"
