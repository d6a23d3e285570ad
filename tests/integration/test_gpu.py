"""Loads on a real GPU: device memory against torch's own figures, the ledger, a real CUDA out of memory.

They run on torch's own CUDA build, with its own allocator: on a real GPU where there is one, else over a
stand-in for the CUDA runtime and NVML that has memory and no kernels (tests/environments/gpu.py).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path

import pytest
from gpu_loads import DEVICE, ROOM
from processes import command, environment, finish, start

import hftrace
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.summary import summary
from hftrace.synth import plan, write, write_many

pytestmark = pytest.mark.gpu

HERE = Path(__file__).parent
SCRIPT = HERE / "gpu_loads.py"
TIMEOUT = 600
"""Seconds: the first process on a GPU may have to read gigabytes of CUDA's libraries."""
WITHIN = 0.01
"""How far the peak may be from torch's."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def checkpoint(place):
    """330 tensors of at most 1 MiB, 190 MB: twice what a tight load may have."""
    path = place / "checkpoint"
    path.mkdir()
    write_many(path, 330, hidden_size=512, max_shard_size="70MB")
    return path


@pytest.fixture(scope="module")
def experts(place):
    """A mixture of experts of 200 MB, which 5.x puts together from a tensor for each expert."""
    path = place / "experts"
    write(plan("mixtral-8x7b", size="200MB", max_shard_size="60MB"), path)
    return path


def trace_load(place, checkpoint, name, *options, **variables):
    """Runs ``hftrace load`` in a folder of its own; returns what it said, and the trace."""
    folder = place / name
    arguments = ["load", checkpoint, "--dtype", "bfloat16", *options, "-o", "out.json"]
    done = finish(start(arguments, folder, environment(variables, HERE)), folder, TIMEOUT)
    assert (folder / "out.json").exists(), done.stderr
    return done, hftrace.Trace.open(folder / "out.json")


def run_script(run_python, folder, checkpoint, what):
    """Runs a command of gpu_loads.py, which leaves its traces in the folder; returns its report."""
    done = run_python(SCRIPT, what, checkpoint, folder, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "report.json").read_text())


# -- a load in a fresh process ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(place, checkpoint):
    done, trace = trace_load(place, checkpoint, "load", "--device-map", DEVICE, "--forward", "--release")
    assert done.code == 0, done.stderr
    assert trace.outcome.status == "ok"
    assert trace.header["errors"] == []
    return done, trace


def test_spans_have_the_figures_of_the_allocator(loaded):
    _, trace = loaded
    (load,) = trace.loads
    held = sum(row.bytes for row in trace.tensors if row.device == DEVICE)
    assert held > 180_000_000
    allocated, reserved, peak = (
        column[DEVICE]
        for column in (load.device_allocated_bytes, load.device_reserved_bytes, load.device_peak_bytes)
    )
    # Each tensor is rounded up to 512 bytes, and one in 20 MB may get a MB more.
    assert 0.99 * held <= allocated <= 1.1 * held
    assert allocated <= peak <= 1.25 * held
    assert allocated <= reserved
    # Neighbouring imports are one span, with the figures of several.
    measured = [span for span in trace.spans if span.device_peak_bytes and span.phase != "import"]
    assert {"weights", "forward", "release"} <= {span.phase for span in measured}
    for span in measured:
        assert 0 <= span.device_allocated_bytes[DEVICE] <= span.device_reserved_bytes[DEVICE]
        assert span.device_allocated_bytes[DEVICE] <= span.device_peak_bytes[DEVICE]
        if span.parent == load.id and span.thread == load.thread:
            assert span.device_peak_bytes[DEVICE] <= peak
    assert summary(trace)["device_peak_bytes"][DEVICE] >= peak


def test_the_trace_says_where_the_figures_are_from(loaded):
    _, trace = loaded
    assert trace.header["measured"]["spans.device_peak_bytes"] == "torch's allocator"
    assert trace.environment["device_memory"]["reason"] is None
    device = trace.environment["devices"][0]
    assert device["device"] == DEVICE
    assert device["name"]
    # The context of CUDA is outside of the allocator.
    assert device["memory_bytes"] > device["used_bytes"] >= device["outside_allocator_bytes"] > 0


def test_the_allocator_is_sampled_between_the_edges(loaded):
    _, trace = loaded
    (load,) = trace.loads
    rows = [row for row in trace.samples if row.device_allocated_bytes]
    weights = next(span for span in trace.spans if span.phase == "weights")
    # Every 35 ms while a load is open, once CUDA is in use.
    assert rows or weights.duration_ns < 500_000_000
    for row in rows:
        assert row.device_allocated_bytes[DEVICE] <= row.device_reserved_bytes[DEVICE]
        if load.start_ns <= row.time_ns <= load.end_ns:
            assert row.device_allocated_bytes[DEVICE] <= load.device_peak_bytes[DEVICE]


def check_explained(trace):
    """Asserts that the peak of the device is made of what the ledger knows; returns the peak."""
    (peak,) = highest_device_peaks(trace)
    assert peak.device == DEVICE
    assert all(part.bytes > 0 for part in peak.parts)
    assert sum(part.bytes for part in peak.parts) == peak.peak_bytes
    # What the driver says is in use before the load is no part of it: the allocator had nothing.
    assert "before" not in {part.kind for part in peak.parts}
    assert peak.peak_bytes == trace.loads[0].device_peak_bytes[DEVICE]
    assert peak.explained >= 0.95, peak
    assert peak.memory_bytes > peak.outside_allocator_bytes > 0
    return peak


def test_the_peak_of_the_device_is_explained(loaded):
    _, trace = loaded
    peak = check_explained(trace)
    assert peak.unused_bytes == peak.reserved_bytes - peak.allocated_bytes
    kinds = {part.kind: part.bytes for part in peak.parts}
    assert kinds.get("before", 0) == 0
    # A warm-up that rounds up may be higher than the weights ever are.
    assert kinds.get("parameters", kinds.get("warmup", 0)) > 180_000_000


def test_the_peak_of_a_conversion_is_explained(place, experts):
    done, trace = trace_load(place, experts, "experts-load", "--device-map", DEVICE)
    assert done.code == 0, done.stderr
    peak = check_explained(trace)
    kinds = {part.kind: part.bytes for part in peak.parts}
    stored = sum(row.stored_bytes for row in trace.tensors if row.stored_bytes)
    if trace.environment["generation"] == "D":
        # The sources of a layer's experts, and the tensor that is made of them.
        # 5.8 needs more for the copies that it initialises, later.
        assert kinds.get("copies", 0) + kinds.get("temporary", 0) > 0.1 * stored
    shown = command("show", "out.json", "--view", "memory", cwd=done.cwd)
    assert f"What the peak on {DEVICE} is made of" in shown.stdout


def test_the_forward_pass_ran_on_the_gpu_and_the_model_was_freed(loaded):
    _, trace = loaded
    (load,) = trace.loads
    steps = {span.phase: span for span in trace.spans if span.phase in ("forward", "release")}
    assert [span.status for span in steps.values()] == ["ok", "ok"], steps
    assert steps["forward"].attributes["device"] == DEVICE
    assert steps["release"].attributes["freed"] is True
    # The model's tensors are gone. What cuBLAS has taken stays, and keeps its whole segment reserved.
    assert steps["release"].device_allocated_bytes[DEVICE] < load.device_allocated_bytes[DEVICE]
    kept = steps["release"].attributes["kept_device_bytes"][DEVICE]
    assert kept == steps["release"].device_reserved_bytes[DEVICE]


def test_the_ledger_says_that_all_is_on_the_gpu(loaded):
    _, trace = loaded
    assert {row.device for row in trace.tensors if row.name} == {DEVICE}
    assert {row.provenance for row in trace.tensors} == {"checkpoint", "computed"}
    assert all(row.placed_ns is not None for row in trace.tensors if row.provenance == "checkpoint")


def test_the_views_show_the_gpu(loaded):
    done, _ = loaded
    assert "Traceback" not in done.stderr
    for view in ("summary", "memory", "timeline"):
        shown = command("show", "out.json", "--view", view, cwd=done.cwd)
        assert shown.code == 0, shown.stderr
        assert "cuda" in shown.stdout, shown.stdout


def nvml_works():
    """Returns whether NVML tells a process like this one what the first device has in use."""
    if importlib.util.find_spec("pynvml") is None or "CUDA_VISIBLE_DEVICES" in os.environ:
        return False
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used > 0
        finally:
            pynvml.nvmlShutdown()
    except Exception:
        return False


def test_samples_have_the_whole_device_or_the_reason(loaded):
    _, trace = loaded
    missing = trace.header["sampling"]["missing"]
    used = [row.device_used_bytes[DEVICE] for row in trace.samples if row.device_used_bytes]
    assert bool(used) != ("device_used_bytes" in missing), missing
    if nvml_works():
        assert used, missing
    if importlib.util.find_spec("pynvml") is None:
        assert missing["device_used_bytes"].startswith("pynvml is not installed")
    source = trace.header["measured"]["samples.device_used_bytes"]
    if not used:
        assert source is None
        return
    assert source == "NVML"
    # Of all processes: at least what this one had.
    assert max(used) >= trace.loads[0].device_allocated_bytes[DEVICE]
    # NVML counts what the driver keeps for itself, too.
    assert max(used) < 1.2 * trace.environment["devices"][0]["memory_bytes"]


# -- against torch's own figures, in one process ------------------------------------------------------


def device_rows(trace):
    return {row.name: row.device for row in trace.tensors if row.name}


def test_a_traced_load_is_the_same_and_its_peak_is_torch_s(run_python, tmp_path, checkpoint):
    """The script itself compares a traced model with an untraced one, bit for bit."""
    report = run_script(run_python, tmp_path, checkpoint, "equal")
    untraced, exact, plain = (report[name] for name in ("untraced", "exact", "plain"))
    assert set(report["tensors"].values()) == {DEVICE}
    # Tracing allocates nothing on the device, and takes no random number.
    assert exact["before"] == plain["before"] == untraced["before"]
    assert exact["allocated"] == pytest.approx(untraced["allocated"], rel=WITHIN)
    assert exact["random"] == plain["random"] == untraced["random"]
    for name, own, peak in (
        # Each edge of a span begins a new peak: the truth is the same load untraced.
        ("exact", exact, untraced["peak"]),
        # Torch's peak is left alone: the truth is what torch says of this very load.
        ("plain", plain, plain["peak"]),
    ):
        trace = hftrace.Trace.open(tmp_path / f"{name}.json")
        assert trace.header["errors"] == []
        assert device_rows(trace) == report["tensors"]
        (load,) = trace.loads
        assert load.device_peak_bytes[DEVICE] == pytest.approx(peak, rel=WITHIN)
        assert load.device_allocated_bytes[DEVICE] == pytest.approx(own["allocated"], rel=WITHIN)
        assert load.device_reserved_bytes[DEVICE] == pytest.approx(own["reserved"], rel=WITHIN)
        device = trace.environment["devices"][0]
        assert (device["device"], device["name"]) == (DEVICE, report["name"])
        assert device["memory_bytes"] == pytest.approx(report["total"], rel=WITHIN)


def test_a_model_spread_over_gpu_and_cpu(run_python, tmp_path, checkpoint):
    report = run_script(run_python, tmp_path, checkpoint, "offload")
    assert len(report["map"]) == 2
    assert "cpu" in report["map"]
    trace = hftrace.Trace.open(tmp_path / "offload.json")
    assert trace.outcome.status == "ok"
    assert trace.header["errors"] == []
    assert device_rows(trace) == report["tensors"]
    on_gpu = [row for row in trace.tensors if row.device == DEVICE]
    away = [row for row in trace.tensors if row.device != DEVICE]
    # 4.36 plans with less than it then loads.
    assert 0 < sum(row.bytes for row in on_gpu) <= 1.1 * ROOM
    # What stays on the CPU comes to the GPU with each forward pass; until then the model has it on meta.
    assert away
    assert {(row.device, row.provenance, row.offload) for row in away} == {("meta", "offloaded", "cpu")}
    assert {row.offload for row in on_gpu} == {None}
    assert {"device_map", "dispatch"} <= {span.phase for span in trace.spans}


def test_a_load_that_is_killed_has_said_what_it_had(place, checkpoint):
    options = ("--device-map", DEVICE, "--class", "gpu_loads:Killed")
    done, trace = trace_load(place, checkpoint, "killed", *options)
    assert done.code == 1
    assert (trace.outcome["status"], trace.outcome["signal"]) == ("killed", "SIGKILL")
    (load,) = trace.loads
    assert load.device_peak_bytes[DEVICE] > 180_000_000
    assert trace.header["measured"]["spans.device_peak_bytes"] == "torch's allocator"
    # What a load that ends well says at its end, this one said when it first had something on the device.
    (device,) = [each for each in trace.environment["devices"] if each["device"] == DEVICE]
    assert device["memory_bytes"] > device["used_bytes"] > device["outside_allocator_bytes"] > 0
    check_explained(trace)


# -- out of memory ------------------------------------------------------------------------------------


def check_out_of_memory(done, trace, room=ROOM):
    """Asserts what every load says that found too little memory on the GPU; returns the outcome."""
    outcome = trace.outcome
    error = outcome.get("cause") or outcome["error"]
    assert done.code == 1
    assert (outcome["status"], outcome["killer"]) == ("error", "out-of-memory")
    assert error["type"].rpartition(".")[2] == "OutOfMemoryError"
    # The message has the device and its figures; no limit of the host applies.
    assert "CUDA out of memory" in outcome["evidence"][0]["message"]
    assert "GPU 0" in outcome["evidence"][0]["message"]
    assert (outcome["limit_bytes"], outcome["limit_kind"]) == (None, None)
    full = outcome["device"]
    assert full["device"] == DEVICE
    assert full["allowed_bytes"] == pytest.approx(room, rel=WITHIN)
    assert full["asked_bytes"] > 0
    assert 0 <= full["allocated_bytes"] <= full["reserved_bytes"] <= room
    assert full["memory_bytes"] > full["outside_allocator_bytes"] > 0
    assert full["predicted_bytes"] == outcome["placed_bytes"] + outcome["remaining_bytes"]
    assert outcome["memory_at_death_bytes"] > outcome["anon_at_death_bytes"] > 0
    (complaint,) = done.complaints
    assert complaint.startswith(
        f"hftrace: the load failed in phase {outcome['last_phase']}: OutOfMemoryError: "
    )
    assert "CUDA out of memory" in complaint
    assert complaint.endswith("The trace of what happened until then: out.json")
    assert trace.header["errors"] == []
    (load,) = trace.loads
    assert load.status == "error"
    for column in (load.device_allocated_bytes, load.device_reserved_bytes, load.device_peak_bytes):
        assert column[DEVICE] <= room
    assert trace.header["measured"]["spans.device_peak_bytes"] == "torch's allocator"
    shown = command("show", "out.json", "--view", "postmortem", cwd=done.cwd)
    assert shown.code == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    assert "out of memory" in text
    assert f"device {DEVICE}: " in text
    assert "more were asked for" in text
    assert f"Out of memory on {DEVICE}" in done.stdout
    return outcome


def tight(place, checkpoint, name, **variables):
    options = ("--device-map", DEVICE, "--class", "gpu_loads:Tight")
    return trace_load(place, checkpoint, name, *options, **variables)


def test_out_of_memory(place, checkpoint):
    """Since 4.50 a load asks for the memory of the whole model before it reads the first tensor."""
    done, trace = tight(place, checkpoint, "tight")
    outcome = check_out_of_memory(done, trace)
    warmup = [span for span in trace.spans if span.phase == "warmup"]
    if warmup:
        assert [span.status for span in warmup] == ["error"]
        assert (outcome["last_phase"], outcome["died_in"]) == ("warmup", "caching_allocator_warmup")
        assert outcome["placed_bytes"] == 0
        assert outcome["remaining_bytes"] > 180_000_000


def test_out_of_memory_at_a_tensor(place, checkpoint):
    done, trace = tight(place, checkpoint, "tight-tensors", GPU_LOADS_WARMUP="0")
    outcome = check_out_of_memory(done, trace)
    assert outcome["last_phase"] in ("weights", "shard", "convert")
    assert outcome["last_tensor"]
    assert outcome["last_file"].endswith(".safetensors")
    stored = sum(row.stored_bytes for row in trace.tensors)
    assert outcome["placed_bytes"] + outcome["remaining_bytes"] == stored
    # With four threads that read ahead, the GPU may be full before the model has it all.
    assert 0 < outcome["placed_bytes"] <= ROOM
    assert trace.loads[0].device_peak_bytes[DEVICE] > ROOM / 2


def needs_conversions():
    if int(importlib.metadata.version("transformers").partition(".")[0]) < 5:
        pytest.skip("before 5.0 each expert is a parameter of its own")


def test_out_of_memory_in_a_conversion(place, experts):
    """5.x catches the error, goes on, and fails later with one that does not say why.

    Nothing is read ahead here: with reader threads it may be a read that finds no memory.
    """
    needs_conversions()
    room = 210_000_000
    variables = {"GPU_LOADS_WARMUP": "0", "GPU_LOADS_ROOM": str(room), "HF_DEACTIVATE_ASYNC_LOAD": "1"}
    done, trace = tight(place, experts, "tight-experts", **variables)
    outcome = check_out_of_memory(done, trace, room)
    assert outcome["error"]["type"] == "RuntimeError"
    assert "We encountered some issues during automatic conversion" in outcome["error"]["message"]
    assert outcome["last_phase"] == "convert"
    assert outcome["last_tensor"].endswith(("experts.gate_up_proj", "experts.down_proj"))
    assert outcome["died_in"] == f"convert({outcome['last_tensor']})"
    (span,) = [row for row in trace.spans if row.name == outcome["died_in"]]
    assert (span.status, span.phase, span.attributes["caught"]) == ("error", "convert", True)
    shown = command("show", "out.json", "--view", "postmortem", cwd=done.cwd)
    assert "The load caught that, and ended with RuntimeError" in " ".join(shown.stdout.split())


def test_out_of_memory_in_a_thread_that_reads_ahead(place, experts):
    """Where reading is ahead of converting, a read finds no memory, and 5.x does not catch that."""
    needs_conversions()
    room = 120_000_000
    variables = {"GPU_LOADS_WARMUP": "0", "GPU_LOADS_ROOM": str(room), "GPU_LOADS_READ_AHEAD": "1"}
    done, trace = tight(place, experts, "tight-readers", **variables)
    outcome = check_out_of_memory(done, trace, room)
    assert outcome["error"]["type"].rpartition(".")[2] == "OutOfMemoryError"
    assert outcome.get("cause") is None
    assert outcome["last_phase"] in ("weights", "convert")
    assert outcome["remaining_bytes"] > 0
    shown = command("show", "out.json", "--view", "postmortem", cwd=done.cwd)
    assert "The load caught that" not in " ".join(shown.stdout.split())
