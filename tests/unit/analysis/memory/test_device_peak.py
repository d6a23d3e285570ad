"""What the peak of a device was made of, from traces made by hand."""

from __future__ import annotations

import dataclasses

import pytest

import handmade
import handmade_memory
from handmade import MB, MS, Builder
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.peaks import unmeasured_devices
from hftrace.analysis.summary import summary
from hftrace.render.peak import describe_device_peaks
from hftrace.schema.model import Facts

ELEMENTS = 10_000_000
"""Of each tensor: 20 MB."""


def held(allocated, reserved, peak, device="cuda:0"):
    columns = ("device_allocated_bytes", "device_reserved_bytes", "device_peak_bytes")
    sizes = (allocated, reserved, peak)
    return {name: {device: size * MB} for name, size in zip(columns, sizes, strict=True)}


def load(made, start, end, *figures, device="cuda:0"):
    return made.span(None, "load", "Model", start, end, **held(*figures, device=device))


def tensor(made, name, placed_ms, device="cuda:0", **more):
    at = round(placed_ms * MS)
    times = {"read_start_ns": at - 2 * MS, "read_end_ns": at - MS, "placed_ns": at}
    made.tensor(name, [ELEMENTS], device=device, **{**times, **more})


def sizes(peak):
    return {part.kind: part.bytes / MB for part in peak.parts}


def test_parameters_and_what_nobody_explains():
    made = Builder()
    load(made, 0, 100, 80, 120, 100)
    for number in range(4):
        tensor(made, f"layers.{number}.weight", 10 + number, "cuda")
    made.tensor("tied.weight", [ELEMENTS], device="cuda", provenance="tied")
    (peak,) = highest_device_peaks(made.trace())
    assert (peak.device, peak.peak_bytes, peak.unused_bytes) == ("cuda:0", 100 * MB, 40 * MB)
    assert sizes(peak) == {"parameters": 80, "rest": 20}
    assert peak.parts[0].tensors == 4
    assert peak.explained == 0.8


def test_a_conversion_holds_sources_and_result():
    (peak,) = highest_device_peaks(handmade_memory.on_device())
    assert sizes(peak) == {"parameters": 320, "copies": 640}
    assert sum(part.bytes for part in peak.parts) == peak.peak_bytes
    assert peak.explained == 1.0
    assert (peak.memory_bytes, peak.outside_allocator_bytes) == (2_000 * MB, 300 * MB)


def test_sources_that_were_still_being_read():
    """Half of those of the second conversion were there when the first one was made."""
    made = Builder()
    root = load(made, 0, 100, 40, 60, 50)
    weights = made.span(root, "weights", "weights", 5, 35, **held(40, 60, 50))
    for name, read, read_end, placed in (("a", 10, 20, 30), ("b", 20, 40, 60)):
        made.tensor(
            name,
            [ELEMENTS],
            device="cuda:0",
            provenance="converted",
            span=weights,
            read_start_ns=read * MS,
            read_end_ns=read_end * MS,
            placed_ns=placed * MS,
        )
    (peak,) = highest_device_peaks(made.trace())
    # At 30 ms: a's sources, a, and half of b's sources.
    assert sizes(peak) == {"copies": 50}


def test_a_load_that_was_not_finished():
    (peak,) = highest_device_peaks(handmade_memory.on_device(full=True))
    assert sizes(peak) == {"parameters": 320, "copies": 320}


def test_a_warm_up_that_asked_for_more_than_the_model():
    made = Builder()
    root = load(made, 0, 100, 20, 200, 200)
    made.span(root, "warmup", "caching_allocator_warmup", 1, 5, **held(0, 200, 200))
    weights = made.span(root, "weights", "weights", 5, 90, **held(20, 200, 20))
    tensor(made, "weight", 50, span=weights)
    (peak,) = highest_device_peaks(made.trace())
    assert sizes(peak) == {"warmup": 200}
    assert peak.unused_bytes == 180 * MB
    (finding,) = [each for each in findings(made.trace()) if each.rule == "R10"]
    assert finding.title == "180 MB of cuda:0 reserved and unused"
    assert finding.cost_bytes == 180 * MB
    assert (
        "reserved 200 MB of cuda:0 for 20.0 MB of tensors; its warm-up had reserved 200 MB before"
        in finding.evidence
    )


def test_what_a_function_gave_back_before_it_returned():
    """5.8 initialises a copy of what it then leaves alone."""
    made = Builder()
    root = load(made, 0, 100, 20, 90, 80)
    weights = made.span(root, "weights", "weights", 5, 50, **held(20, 20, 20))
    made.span(root, "initialize", "initialize_weights", 60, 90, "P.initialize_weights", **held(20, 90, 80))
    tensor(made, "weight", 40, span=weights)
    (peak,) = highest_device_peaks(made.trace())
    assert sizes(peak) == {"parameters": 20, "temporary": 60}
    assert peak.parts[-1].label == "temporary, in initialize_weights"
    assert peak.explained == 1


def test_what_was_there_before():
    made = Builder()
    made.span(None, "import", "import torch", 0, 10, **held(300, 400, 300))
    root = load(made, 20, 100, 320, 400, 321)
    made.span(root, "weights", "weights", 30, 90, **held(320, 400, 321))
    tensor(made, "weight", 50)
    (peak,) = highest_device_peaks(made.trace())
    assert sizes(peak) == {"before": 300, "parameters": 20, "rest": 1}
    assert peak.explained == 1 - 1 / 21


def test_each_device_has_its_own():
    made = Builder()
    root = load(made, 0, 100, 20, 20, 20)
    both = {name: {**sizes, "cuda:1": 40 * MB} for name, sizes in held(20, 20, 20).items()}
    made.spans[0] = dataclasses.replace(made.spans[0], **both)
    tensor(made, "a", 10, span=root)
    tensor(made, "b", 12, "cuda:1")
    tensor(made, "c", 14, "cuda:1")
    first, second = highest_device_peaks(made.trace())
    assert (first.device, sizes(first)) == ("cuda:0", {"parameters": 20})
    assert (second.device, sizes(second)) == ("cuda:1", {"parameters": 40})


def test_of_several_loads_the_one_that_needed_most():
    made = Builder()
    load(made, 0, 10, 20, 20, 20)
    load(made, 20, 30, 60, 60, 60)
    tensor(made, "a", 25)
    (peak,) = highest_device_peaks(made.trace())
    # The first load's tensors were there when the second began.
    assert (peak.load, sizes(peak)) == (1, {"before": 20, "parameters": 20, "rest": 20})


def test_without_a_device_there_is_nothing_to_say():
    for trace in (handmade.sharded(), handmade.empty(), handmade.hostile()):
        assert highest_device_peaks(trace) == []


def test_a_damaged_description_of_devices_is_left_out():
    trace = handmade_memory.on_device()
    for devices in (None, 3, [None, {"device": 1}, {"device": "cuda:0", "memory_bytes": "much"}]):
        changed = dataclasses.replace(trace, environment=Facts({**trace.environment, "devices": devices}))
        (peak,) = highest_device_peaks(changed)
        assert (peak.memory_bytes, peak.outside_allocator_bytes) == (None, None)


def test_little_that_is_reserved_is_no_finding():
    names = [finding.rule for finding in findings(handmade_memory.on_device())]
    assert names.count("R10") == 1  # 360 of 1,000 MB
    made = Builder()
    load(made, 0, 100, 80, 120, 80)
    assert [finding for finding in findings(made.trace()) if finding.rule == "R10"] == []


def test_parts_are_cut_to_what_fits_and_that_is_said():
    made = Builder()
    load(made, 0, 100, 30, 30, 30)
    for number in range(2):
        tensor(made, f"layers.{number}.weight", 10 + number)
    (peak,) = highest_device_peaks(made.trace())
    assert sizes(peak) == {"parameters": 30}
    assert (peak.overstated_bytes, peak.explained) == (10 * MB, 1 - 10 / 30)


def test_what_was_there_before_gives_way_to_the_model():
    """The caller's old model was freed while the new one was read."""
    made = Builder()
    made.span(None, "forward", "old", 0, 10, **held(50, 60, 50))
    root = load(made, 20, 100, 40, 60, 50)
    made.span(root, "weights", "weights", 30, 90, **held(40, 60, 50))
    for number in range(2):
        tensor(made, f"layers.{number}.weight", 40 + number)
    (peak,) = highest_device_peaks(made.trace())
    assert sizes(peak) == {"before": 10, "parameters": 40}
    assert sum(part.bytes for part in peak.parts) == peak.peak_bytes


def test_a_driver_s_figure_is_no_allocator_s():
    made = Builder()
    for at in (1, 50, 99):
        made.sample(at, 100, 100)
        made.samples[-1] = dataclasses.replace(made.samples[-1], device_used_bytes={"cuda:0": 645 * MB})
    root = load(made, 20, 100, 20, 20, 20)
    made.span(root, "weights", "weights", 30, 90, **held(20, 20, 20))
    tensor(made, "weight", 50)
    (peak,) = highest_device_peaks(made.trace())
    assert (sizes(peak), peak.explained) == ({"parameters": 20}, 1)


def test_a_tensor_on_a_device_without_a_number_is_on_the_first():
    made = Builder()
    load(made, 0, 100, 20, 20, 20)
    both = {name: {**sizes, "cuda:1": 40 * MB} for name, sizes in held(20, 20, 20).items()}
    made.spans[0] = dataclasses.replace(made.spans[0], **both)
    tensor(made, "a", 10, "cuda")
    first, second = highest_device_peaks(made.trace())
    assert (sizes(first), sizes(second)) == ({"parameters": 20}, {"rest": 40})


def test_full_precision_is_there_until_it_is_quantised():
    """Two tensors of 20 MB become 5 MB each, with 1 MB of scales that the ledger does not have."""
    made = Builder()
    root = load(made, 0, 100, 12, 60, 37)
    weights = made.span(root, "weights", "weights", 5, 90, **held(12, 60, 37))
    for number, at in enumerate((30, 60)):
        times = {"read_start_ns": (at - 20) * MS, "read_end_ns": (at - 10) * MS, "placed_ns": at * MS}
        made.tensor(
            f"layers.{number}.weight",
            [ELEMENTS // 2],
            provenance="quantized",
            stored_bytes=20 * MB,
            bytes=5 * MB,
            device="cuda:0",
            span=weights,
            **times,
        )
    (peak,) = highest_device_peaks(made.trace())
    # When the second is made: the first and its scales, the second in full, its codes and its scales.
    expected = {"parameters": 5, "unquantized": 20, "copies": 5, "scales": 2, "rest": 5}
    assert sizes(peak) == pytest.approx(expected, abs=0.001)


def test_an_accelerator_that_nobody_measured_is_said_to_be():
    made = Builder()
    made.environment.update(
        device_memory={"source": None, "reason": "torch keeps no account of the memory of mps"}
    )
    made.span(None, "load", "Model", 0, 100)
    tensor(made, "weight", 50, "mps:0")
    trace = made.trace()
    assert unmeasured_devices(trace) == ["mps:0"]
    assert describe_device_peaks(trace) == ("mps:0 not measured: torch keeps no account of the memory of mps")
    assert summary(trace)["device_peak_bytes"] is None
