"""Devices: what is moved after a load, held on the way, or on two of them. On a GPU's traces, and by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from handmade import GB, MB, MS, Builder
from hftrace.analysis.findings.registry import findings
from hftrace.schema.model import Table, Tensor
from hftrace.schema.trace import Trace

GPU = Path(__file__).parents[3] / "data" / "gpu"
COLUMNS = ("device_allocated_bytes", "device_reserved_bytes", "device_peak_bytes")


def held(allocated, reserved, peak):
    return {name: {"cuda:0": size} for name, size in zip(COLUMNS, (allocated, reserved, peak), strict=True)}


def found(trace):
    return {finding.name: finding for finding in findings(trace)}


@pytest.mark.parametrize("path", sorted(GPU.glob("*.json.gz")), ids=lambda path: path.name)
def test_real_loads_on_a_gpu_are_healthy(path):
    above = {finding.name for finding in findings(Trace.open(path)) if finding.severity != "info"}
    # That one had room for a part alone, by max_memory.
    offloaded = {"offloaded-to-cpu", "offloaded-to-disk"} if "offload" in path.name else set()
    assert above == offloaded


def moved(device="cuda:0", spent_ms=4_000, moves=1, share=1.0):
    """Four tensors of 500 MB, loaded on the CPU; a share of them went to a device afterwards."""
    made = Builder()
    made.header |= {"command": "trace", "wall_ns": 10_000 * MS}
    load = made.span(None, "load", "Llama", 0, 1_000)
    for move in range(moves):
        start = 2_000 + move * spent_ms
        made.span(None, "surgery", "Llama.to", start, start + spent_ms)
    for number in range(4):
        made.tensor(f"layers.{number}.weight", [250_000_000], load=load, file="m.safetensors")
    trace = made.trace()
    before = trace.tensors
    rows = list(before)
    for number in range(round(4 * share)):
        rows[number] = dataclasses.replace(rows[number], device=device)
    return dataclasses.replace(trace, tensors=Table.of(Tensor, rows), at_return=before)


def test_a_model_that_is_moved_whole():
    finding = found(moved())["moved-after-load"]
    assert (finding.rule, finding.severity, finding.cost_ns) == ("R06", "warning", 4_000 * MS)
    assert finding.fix.keywords == {"device_map": "cuda:0"}
    assert finding.numbers["moved_bytes"] == 2 * GB
    assert "4 tensors, 2.00 GB, went to cuda:0 after their load, by Llama.to in 4.00 s (500 MB/s)" in (
        finding.evidence
    )


def test_of_several_moves_nobody_can_say_which_it_was():
    finding = found(moved(moves=2))["moved-after-load"]
    assert (finding.cost_ns, finding.cost_bytes) == (None, 2 * GB)


def test_a_move_that_is_quick_is_no_warning():
    assert found(moved(spent_ms=100))["moved-after-load"].severity == "info"


@pytest.mark.parametrize("trace", [moved(share=0.5), moved(device="meta"), moved(device="cpu")])
def test_what_is_no_move_of_the_whole(trace):
    assert "moved-after-load" not in found(trace)


def on_device(warmed, reserved, allocated, peak, quantized=False, waiting=0):
    """A load of four tensors of 500 MB onto a device."""
    made = Builder()
    made.environment["devices"] = [{"device": "cuda:0", "memory_bytes": 80 * GB}]
    got = {"quantization": {"method": "bitsandbytes", "quantizer": "Bnb4BitHfQuantizer"}} if quantized else {}
    load = made.span(
        None, "load", "Llama", 0, 1_000, attributes={"got": got}, **held(allocated, reserved, peak)
    )
    made.span(load, "warmup", "warmup", 100, 110, **held(0, warmed, 0))
    made.span(load, "weights", "weights", 110, 990, **held(allocated, reserved, peak))
    for number in range(4):
        at = (200 + 10 * number) * MS
        more = {"provenance": "quantized", "bytes": 125 * MB} if quantized else {}
        made.tensor(
            f"layers.{number}.weight", [250_000_000], device="cuda:0", load=load, read_start_ns=at,
            read_end_ns=at + MS, placed_ns=at + (500 * MS if waiting else 2 * MS), **more,
        )  # fmt: skip
    return made.trace()


def test_a_warm_up_that_asks_for_twice_the_model():
    finding = found(on_device(4 * GB, 4 * GB, 2 * GB, 2 * GB))["warm-up-overshoot"]
    assert (finding.rule, finding.cost_bytes) == ("R10", 2 * GB)
    assert finding.title == "The warm-up reserved 4.00 GB of cuda:0 for 2.00 GB"


def test_a_warm_up_that_asks_for_the_model():
    assert found(on_device(2 * GB + 100 * MB, 2 * GB + 100 * MB, 2 * GB, 2 * GB)) == {}


def test_tensors_that_wait_to_be_quantised():
    trace = on_device(0, 3 * GB, 500 * MB, 2 * GB, quantized=True, waiting=True)
    finding = found(trace)["quantise-staging"]
    assert (finding.rule, finding.cost_bytes) == ("R11", 3 * GB - 500 * MB)
    assert finding.fix.environment == {"HF_DEACTIVATE_ASYNC_LOAD": "1"}
    assert finding.numbers["waiting_bytes"] > GB


@pytest.mark.parametrize(
    "trace",
    [
        on_device(0, 2100 * MB, 2 * GB, 2100 * MB, quantized=True, waiting=True),
        on_device(0, 3 * GB, 500 * MB, 2 * GB, waiting=True),
    ],
)
def test_no_staging_where_nothing_is_spared(trace):
    assert "quantise-staging" not in found(trace)


def shared(integrated, mapped=2 * GB):
    made = Builder()
    made.environment |= {
        "devices": [{"device": "cuda:0", "memory_bytes": 120 * GB, "integrated": integrated}],
        "transformers": "5.24.0",
    }
    load = made.span(None, "load", "Llama", 0, 1_000, rss_file_bytes=mapped, **held(2 * GB, 2 * GB, 2 * GB))
    for number in range(4):
        made.tensor(f"layers.{number}.weight", [250_000_000], device="cuda:0", load=load)
    return made


def test_one_memory_with_the_weights_in_it_twice():
    finding = found(shared(True).trace())["double-residency"]
    assert (finding.rule, finding.cost_bytes) == ("R16", 2 * GB)
    assert finding.fix.keywords == {"disable_mmap": True}


def test_a_version_that_cannot_read_whole_has_no_such_fix():
    made = shared(True)
    made.environment["transformers"] = "4.57.6"
    assert found(made.trace())["double-residency"].fix is None


@pytest.mark.parametrize("made", [shared(False), shared(None), shared(True, mapped=200 * MB)])
def test_two_memories_are_two(made):
    assert "double-residency" not in found(made.trace())


def two_places(**keywords):
    made = Builder()
    request = {"class": "Llama", "keywords": keywords}
    load = made.span(None, "load", "Llama", 0, 10, attributes={"request": request, "got": {"class": "Llama"}})
    made.tensor("a.weight", [100], device="cuda:0", load=load)
    made.tensor("b.weight", [10], device="cpu", load=load)
    return made.trace()


def test_two_devices_that_nobody_asked_for():
    finding = found(two_places())["several-devices"]
    assert finding.title == "1 parameter not on cuda:0 with the others"
    assert finding.where.tensors == ["b.weight"]


def test_two_devices_that_a_map_asks_for():
    assert "several-devices" not in found(two_places(device_map="auto"))
