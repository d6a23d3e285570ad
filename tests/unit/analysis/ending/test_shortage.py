"""What an out-of-memory error was about, from messages of torch and traces made by hand."""

from __future__ import annotations

import dataclasses

import pytest

import handmade
import handmade_memory
from handmade import MB
from hftrace.analysis.ending.death import death_of
from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.postmortem import post_mortem
from hftrace.analysis.ending.shortage import (
    caught_cause,
    device_shortage,
)
from hftrace.analysis.findings.registry import findings
from hftrace.launch.ending.explanation import explain_failure
from hftrace.render.evidence import evidence_sentences
from hftrace.schema.model import Facts, Sample, Span, Table

MIB, GIB = 1024**2, 1024**3
NOW = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 1 has a total capacity of 23.64 GiB of which 15.69 "
    "MiB is free. Process 4711 has 2.00 GiB memory in use. Including non-PyTorch memory, this process has "
    "21.60 GiB memory in use. Of the allocated memory 21.10 GiB is allocated by PyTorch, and 12.00 MiB is "
    "reserved by PyTorch but unallocated."
)
ALLOWED = (
    "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 79.25 GiB of which 77.00 "
    "GiB is free. 95.37 MiB allowed; Of the allocated memory 94.00 MiB is allocated by PyTorch, and 0 bytes "
    "is reserved by PyTorch but unallocated."
)
BEFORE_2_1 = (
    "CUDA out of memory. Tried to allocate 100.00 MiB (GPU 0; 10.00 GiB total capacity; 8.00 GiB already "
    "allocated; 50.00 MiB free; 9.00 GiB reserved in total by PyTorch)"
)
MPS = (
    "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 384.00 KB, max allowed: 9.07 GB). "
    "Tried to allocate 256.00 MB on private pool."
)


def shortage(message, kind="torch.OutOfMemoryError", trace=None):
    return device_shortage(trace or handmade.sharded(), {"type": kind, "message": message})


def test_the_figures_of_a_message():
    found = shortage(NOW)
    assert found["device"] == "cuda:1"
    assert found["asked_bytes"] == 20 * MIB
    assert found["free_bytes"] == int(15.69 * MIB)
    assert found["memory_bytes"] == int(23.64 * GIB)
    assert found["allocated_bytes"] == int(21.10 * GIB)
    assert found["allowed_bytes"] is None
    assert found["reserved_bytes"] is None  # the trace has no figure of this device


def test_a_limit_of_the_process():
    found = shortage(ALLOWED)
    assert (found["device"], found["allowed_bytes"]) == ("cuda:0", int(95.37 * MIB))


def test_messages_of_other_allocators():
    old = shortage(BEFORE_2_1, "torch.cuda.OutOfMemoryError")
    assert (old["device"], old["asked_bytes"], old["memory_bytes"]) == ("cuda:0", 100 * MIB, 10 * GIB)
    assert (old["allocated_bytes"], old["free_bytes"]) == (8 * GIB, 50 * MIB)
    apple = shortage(MPS, "RuntimeError")
    assert (apple["device"], apple["asked_bytes"]) == ("mps:0", 256 * MIB)
    assert (apple["allocated_bytes"], apple["memory_bytes"]) == (8 * GIB, int(9.07 * GIB))
    assert shortage(NOW.replace("CUDA", "XPU"))["device"] == "xpu:1"


@pytest.mark.parametrize("message", ["", "CUDA error: out of memory", "Tried to allocate ..... MiB. CUDA"])
def test_a_message_that_says_little(message):
    found = shortage(message)
    assert found["device"] == "cuda:0"
    assert found["asked_bytes"] is None


def test_the_memory_of_the_host_is_no_device():
    assert shortage("DefaultCPUAllocator: can't allocate memory", "RuntimeError") is None
    assert shortage("", "MemoryError") is None


# -- an exception that was caught -----------------------------------------------------------------


def mortem(trace):
    return post_mortem(trace, DeathFacts(ram_bytes=16_000_000_000))


def with_mortem(trace):
    return dataclasses.replace(trace, outcome=Facts({**trace.outcome, **mortem(trace)}))


def test_an_error_that_a_conversion_caught_is_the_cause():
    trace = handmade_memory.on_device(full=True)
    result = mortem(trace)
    assert result["killer"] == "out-of-memory"
    assert result["cause"]["type"] == "OutOfMemoryError"
    assert (result["last_phase"], result["last_tensor"]) == (
        "convert",
        "model.layers.1.mlp.experts.gate_up_proj",
    )
    assert result["device"] == {
        "device": "cuda:0",
        "memory_bytes": 1_200 * MB,
        "asked_bytes": int(305.18 * MIB),
        "free_bytes": int(19.07 * MIB),
        "allowed_bytes": None,
        "allocated_bytes": 640 * MB,
        "reserved_bytes": 880 * MB,
        # Of the moment, and not of the end: 1,200 MB without the 880 MB and what was free.
        "outside_allocator_bytes": 320 * MB - int(19.07 * MIB),
        "predicted_bytes": 640 * MB,
    }
    assert (result["limit_bytes"], result["limit_kind"]) == (None, None)
    assert [each["kind"] for each in result["evidence"]] == ["raised", "ended-with", "device-memory"]
    assert result["evidence"][2]["reserved_bytes"] == 880 * MB
    first, second, third = evidence_sentences(death_of(with_mortem(trace)))
    assert first.startswith(
        "convert(model.layers.1.mlp.experts.gate_up_proj) raised OutOfMemoryError: CUDA out"
    )
    assert second.startswith("The load caught that, and ended with RuntimeError: We encountered some issues")
    assert third.startswith("cuda:0 has 1.20 GB: tensors had 640 MB, 240 MB more kept for later, ")
    assert explain_failure(with_mortem(trace)).startswith("OutOfMemoryError: CUDA out of memory. Tried to")


def test_what_is_read_of_it():
    trace = with_mortem(handmade_memory.on_device(full=True))
    end = death_of(trace)
    assert end.function == "WeightConverter.convert"
    assert end.cause.startswith("OutOfMemoryError: CUDA out of memory.")
    assert end.device.room_bytes == 1_200 * MB - end.device.outside_allocator_bytes
    assert (end.limit_bytes, end.limit_kind) == (None, None)
    (finding,) = [each for each in findings(trace) if each.rule == "R25"]
    assert finding.title == "Out of memory on cuda:0"
    assert finding.cost_bytes == 880 * MB
    assert "Torch held 880 MB of 1.20 GB" in finding.evidence
    assert "the loaded model needs 640 MB there" in finding.evidence
    # Others have a quarter of the device: they are named first.
    assert finding.advice.startswith("See with nvidia-smi which processes use cuda:0")


def test_what_was_there_before_is_no_room_for_the_model():
    trace = with_mortem(handmade_memory.on_device(full=True))
    alone = death_of(trace).device.room_bytes
    made = handmade.Builder()
    made.span(
        None,
        "import",
        "import torch",
        0,
        1,
        device_allocated_bytes={"cuda:0": 250 * MB},
        device_reserved_bytes={"cuda:0": 300 * MB},
    )
    earlier = dataclasses.replace(made.trace().spans[0], id=1_000)
    spans = Table.of(Span, [earlier, *trace.spans])
    empty = Table.of(Sample, [])
    device = death_of(dataclasses.replace(trace, spans=spans, samples=empty)).device
    assert (device.before_bytes, device.room_bytes) == (250 * MB, alone - 250 * MB)


def failed(spans, outcome=None):
    made = handmade.Builder()
    root = made.span(None, "load", "Model", 0, 100, status="error", attributes={"error": "RuntimeError: end"})
    for phase, end, attributes in spans:
        made.span(root, phase, f"{phase}({end})", end - 1, end, status="error", attributes=attributes)
    made.outcome = {
        "status": "error",
        "error": {"type": "RuntimeError", "message": "end", "traceback": ""},
        **(outcome or {}),
    }
    return made.trace()


def test_which_failures_are_causes():
    caught = {"caught": True, "error": "ValueError: shapes"}
    memory = {"error": "OutOfMemoryError: CUDA out of memory."}
    asked = ("resolve", 5, {"error": "EntryNotFoundError: 404"})
    assert caught_cause(failed([asked])) is None
    assert caught_cause(failed([asked, ("convert", 9, caught)]))[1:] == ("ValueError", "shapes")
    # The first that failed, whatever the order of the spans.
    assert caught_cause(failed([("convert", 9, caught), ("warmup", 7, memory)])).type == "OutOfMemoryError"
    # What passed through a conversion and was not caught is what the load ended with.
    assert caught_cause(failed([("convert", 9, {**caught, "caught": False})])) is None
    assert caught_cause(failed([("convert", 9, caught)], {"status": "ok"})) is None
    assert caught_cause(failed([("convert", 9, {"caught": True, "error": 3})])) is None
    assert mortem(failed([("convert", 9, caught)]))["killer"] is None


def test_an_error_that_was_not_of_memory_is_told_too():
    trace = with_mortem(
        failed([("convert", 9, {"caught": True, "error": "ValueError: shapes", "target": "a.b"})])
    )
    assert trace.outcome["cause"] == {"type": "ValueError", "message": "shapes"}
    assert trace.outcome["last_tensor"] == "a.b"
    assert explain_failure(trace) == "ValueError: shapes"
    assert death_of(trace).function == "convert(9)"
