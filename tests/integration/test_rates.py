"""Rates of real loads: only bytes that moved, over time that counts once."""

from __future__ import annotations

import threading

import pytest
import torch
from transformers import AutoModelForCausalLM

import hftrace
from hftrace.analysis.memory.composition import peak_composition
from hftrace.analysis.summary import summary
from hftrace.analysis.time.reading import weight_reading
from hftrace.record.child.keywords import dtype_keyword
from hftrace.synth import write_many

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """190 MB in bfloat16, so that what imports take does not hide the weights."""
    path = tmp_path_factory.mktemp("rates")
    write_many(path, 330, hidden_size=512, max_shard_size="70MB")
    return path


def load(checkpoint, dtype=torch.bfloat16, **keywords):
    return AutoModelForCausalLM.from_pretrained(checkpoint, **{dtype_keyword(): dtype}, **keywords)


def read_by(trace, tensors):
    assert sum(part.bytes for part in peak_composition(trace).parts) == peak_composition(trace).peak_bytes
    assert all(part.bytes >= 0 for part in peak_composition(trace).parts)
    return sum(row.stored_bytes for row in trace.tensors if row.stored_bytes and tensors(row))


def test_what_is_cast_is_read(checkpoint, tmp_path):
    load(checkpoint)  # the first load of a process imports
    with hftrace.trace(tmp_path / "out.json"):
        load(checkpoint, torch.float32)
    trace = hftrace.Trace.open(tmp_path / "out.json")
    made = summary(trace)
    assert made["read_bytes"] == read_by(trace, lambda row: row.provenance == "checkpoint")
    assert made["mapped_bytes"] is None
    assert {shard.moved.state for shard in weight_reading(trace).shards} == {"read"}
    assert made["rate_bytes_per_s"] == pytest.approx(made["read_bytes"] / (made["reading_ns"] / 1e9))
    assert made["reading_ns"] <= made["weights_ns"] <= made["loads_wall_ns"]


def test_offloaded_weights_are_in_no_rate(checkpoint, tmp_path):
    """Half of the model stays on disk in its stored dtype, and nobody reads it."""
    pytest.importorskip("accelerate")
    keywords = {"device_map": "auto", "max_memory": {"cpu": 100_000_000}, "offload_folder": tmp_path / "off"}
    load(checkpoint, **keywords)
    with hftrace.trace(tmp_path / "out.json"):
        load(checkpoint, **keywords)
    trace = hftrace.Trace.open(tmp_path / "out.json")
    made = summary(trace)
    left = read_by(trace, lambda row: row.offload == "disk")
    assert left > 50_000_000
    assert made["mapped_bytes"] >= left
    assert (made["read_bytes"] or 0) + made["mapped_bytes"] == read_by(trace, lambda row: row.file)
    states = {shard.moved.state for shard in weight_reading(trace).shards}
    assert states & {"mapped", "partly"}


def test_loads_in_threads_count_their_time_once(checkpoint, tmp_path, globals_put_back):
    load(checkpoint)
    together = threading.Barrier(2)

    def run():
        together.wait()
        load(checkpoint, torch.float32)

    with hftrace.trace(tmp_path / "out.json"):
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    trace = hftrace.Trace.open(tmp_path / "out.json")
    first, last = min(span.start_ns for span in trace.loads), max(span.end_ns for span in trace.loads)
    made = summary(trace)
    assert len(trace.loads) == 2
    assert 0 < made["reading_ns"] <= made["weights_ns"] <= last - first
