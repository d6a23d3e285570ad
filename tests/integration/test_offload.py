"""Offloaded weights: what forward passes move is what the library moves, counted without hftrace."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from collections import Counter

import pytest

import hftrace
from hftrace.analysis.time.offloading import moved_models, moves_of
from hftrace.analysis.time.placement import offloadings, placements
from hftrace.synth import plan, write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

from accelerate import big_modeling, hooks  # noqa: E402
from accelerate.utils import offload  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

ON_DISK = ("model.layers.1", "lm_head")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("offload") / "llama"
    write(plan("llama-2-7b", size="1MB"), place)
    return place


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine, threads that wait for one another take a hundred times longer for tiny steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(folder, place):
    """Loads the model with one layer and the head on disk."""
    with torch.device("meta"):
        empty = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(folder))
    names = [f"model.layers.{number}" for number in range(len(empty.model.layers))]
    names += ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    places = {name: "disk" if name in ON_DISK else "cpu" for name in names}
    return transformers.LlamaForCausalLM.from_pretrained(
        folder, device_map=places, offload_folder=str(place), torch_dtype=torch.float32
    )


def forward(model):
    with torch.no_grad():
        return model(torch.arange(4)[None]).logits


def counted(action):
    """Returns how often functions of accelerate run in a call, and the bytes that come from its loader."""
    codes = {
        hooks.AlignDevicesHook.pre_forward.__wrapped__.__code__: "before",
        hooks.AlignDevicesHook.post_forward.__wrapped__.__code__: "after",
        hooks.set_module_tensor_to_device.__code__: "set",
        offload.OffloadedWeightsLoader.__getitem__.__code__: "got",
    }
    found = Counter()

    def profile(frame, event, argument):
        name = codes.get(frame.f_code)
        if name is not None and event == "call":
            found[name] += 1
        elif name == "got" and event == "return":
            found["bytes"] += argument.nbytes

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return found


def test_a_pass_moves_what_the_library_moves(folder, tmp_path, capsys):
    model = load(folder, tmp_path / "off")
    truth = counted(lambda: forward(model))
    untraced = forward(model)
    del model
    with hftrace.trace(None) as recorded:
        model = load(folder, tmp_path / "off")
        traced = [forward(model) for _ in range(3)]
    trace = recorded.trace
    assert not trace.header["errors"]
    assert all(torch.equal(each, untraced) for each in traced)
    spans = [span for span in trace.spans if span.phase == "forward"]
    assert len(spans) == 3
    for span in spans:
        noted = span.attributes["moves"]
        assert noted["hooks"] == truth["before"] == truth["after"]
        assert noted["disk_tensors"] == truth["got"]
        assert 2 * noted["disk_tensors"] == truth["set"]  # in, and back to the meta device
        assert noted["disk_bytes"] == truth["bytes"]
        assert noted["memory_tensors"] == 0
        assert 0 < noted["in_ns"] + noted["out_ns"] <= noted["pass_ns"] == span.end_ns - span.start_ns
    (moved,) = moved_models(trace)
    # The first load is that of the configuration.
    assert (moved.name, moved.passes, moved.unfinished, moved.number) == ("LlamaForCausalLM", 3, 0, 2)
    assert moved.disk_bytes == truth["bytes"]
    offloaded = [row for row in trace.tensors if row.offload == "disk"]
    assert moved.disk_bytes == sum(row.bytes for row in offloaded)
    assert sum(module.tensors for module in moved.modules) == len(offloaded)
    assert {module.layers for module in moved.modules} == {"model.layers.1", ""}
    assert moved.in_ns == sum(span.attributes["moves"]["in_ns"] for span in spans)
    (placed,) = placements(trace)
    by_device = {place.device: place for place in placed.places}
    assert by_device["disk"].bytes == moved.disk_bytes
    assert set(by_device["disk"].modules) == set(ON_DISK)
    assert placed.attached.hooks == sum(hasattr(module, "_hf_hook") for module in model.modules())
    trace.show(view="offload")
    assert "3 passes, computed on cpu" in capsys.readouterr().out


def test_generate_has_the_sum_of_its_passes(folder, tmp_path):
    model = load(folder, tmp_path / "off")
    truth = counted(lambda: forward(model))
    with hftrace.trace(None) as recorded:
        model.generate(
            torch.arange(4)[None], max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0
        )
    (span,) = [span for span in recorded.trace.spans if span.phase == "generate"]
    moves = moves_of(span.attributes)
    assert moves.passes == 3
    assert moves.disk_tensors == 3 * truth["got"]
    assert not [each for each in recorded.trace.spans if each.phase == "forward"]


def test_offloaded_after_the_load(folder, tmp_path):
    with hftrace.trace(None) as recorded:
        model = transformers.LlamaForCausalLM.from_pretrained(folder)
        accelerate.cpu_offload(model)
        forward(model)
        weights = sum(each.nbytes for each in model.parameters())
        other = transformers.LlamaForCausalLM.from_pretrained(folder)
        accelerate.disk_offload(other, tmp_path / "off")
        forward(other)
    trace = recorded.trace
    assert not trace.header["errors"]
    cpu, disk = moved_models(trace)
    assert (cpu.memory_bytes, cpu.disk_bytes) == (weights, 0)
    assert (disk.memory_bytes, disk.disk_bytes) == (0, weights)
    assert not disk.mapped  # accelerate copies what it reads of its own files
    first, second = offloadings(trace)
    assert first.written == []
    (written,) = second.written
    files = list((tmp_path / "off").glob("*.dat"))
    assert (written.files, written.bytes) == (
        len(files),
        sum(file.stat().st_size for file in files),
    )


def test_a_pass_that_fails_is_no_part_of_the_next(folder, tmp_path):
    with hftrace.trace(None) as recorded:
        model = load(folder, tmp_path / "off")
        with pytest.raises(IndexError):
            model(torch.tensor([[10**9]]))
        forward(model)
        forward(model)
    (moved,) = moved_models(recorded.trace)
    assert (moved.passes, moved.unfinished) == (2, 1)
    assert len([span for span in recorded.trace.spans if span.phase == "forward"]) == 2
    assert not recorded.trace.header["errors"]


@pytest.mark.once
def test_nothing_is_kept_alive(folder, tmp_path):
    seen = []
    original = big_modeling.OffloadedWeightsLoader.__getitem__

    def noting(self, key):
        found = original(self, key)
        seen.append(weakref.ref(found))
        return found

    with hftrace.trace(None):
        model = load(folder, tmp_path / "off")
        big_modeling.OffloadedWeightsLoader.__getitem__ = noting
        try:
            forward(model)
            gc.collect()
            assert seen
            assert not [each for each in seen if each() is not None]
        finally:
            big_modeling.OffloadedWeightsLoader.__getitem__ = original
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None


@pytest.mark.once
def test_a_hook_costs_microseconds():
    """By processor time, the least of several: a module with no weights, whose hooks do next to nothing."""

    def spent():
        started = time.thread_time_ns()
        for _ in range(500):
            hook.pre_forward(module)
            hook.post_forward(module, None)
        return (time.thread_time_ns() - started) / 500

    module = torch.nn.Linear(2, 2)
    hook = hooks.AlignDevicesHook(execution_device="cpu", offload=True, weights_map={})
    hook.tied_params_map = None
    module._parameters.clear()
    spent()
    untraced = min(spent() for _ in range(7))
    with hftrace.trace(None):
        hook.pre_forward(module)
        traced = min(spent() for _ in range(7))
    assert traced - untraced < 40_000  # some 5 µs for both; a machine that is busy takes longer


@pytest.mark.sparse
def test_accelerate_loads_and_dispatches(folder, tmp_path):
    """It writes what stays on the CPU to a folder of its own, and reads it again: that is told apart."""
    with accelerate.init_empty_weights():
        model = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(folder))
    with hftrace.trace(None) as recorded:
        accelerate.load_checkpoint_and_dispatch(
            model,
            folder,
            device_map="auto",
            max_memory={"cpu": "5MB"},
            offload_folder=str(tmp_path / "off"),
            no_split_module_classes=["LlamaDecoderLayer"],
        )
        forward(model)
    trace = recorded.trace
    assert not trace.header["errors"]
    (placed,) = placements(trace)
    files = list((tmp_path / "off").glob("*.dat"))
    (written,) = [each for each in placed.written if each.folder == str(tmp_path / "off")]
    assert (written.files, written.bytes) == (len(files), sum(file.stat().st_size for file in files))
    assert {place.device: place.limit_bytes for place in placed.places} == {"cpu": 5_000_000, "disk": None}
    (moved,) = moved_models(trace)
    assert moved.disk_bytes == sum(row.bytes for row in trace.tensors if row.offload == "disk")
    assert not moved.mapped
