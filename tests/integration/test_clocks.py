"""Processor time and faults of real loads, held against what the loading program measured by itself."""

from __future__ import annotations

import resource
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

import hftrace
from hftrace.record.child.keywords import dtype_keyword
from hftrace.synth import write_many

pytestmark = [
    pytest.mark.integration,
    pytest.mark.sparse,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux counts by thread"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """190 MB in bfloat16."""
    path = tmp_path_factory.mktemp("clocks")
    write_many(path, 330, hidden_size=512, max_shard_size="70MB")
    return path


def used(who):
    found = resource.getrusage(who)
    return [found.ru_utime + found.ru_stime, found.ru_minflt, found.ru_majflt]


@pytest.fixture
def loaded(checkpoint, tmp_path):
    """A load that casts, in an interpreter that has all imports, and one thread for torch's own work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        load = lambda: AutoModelForCausalLM.from_pretrained(checkpoint, **{dtype_keyword(): torch.float32})  # noqa: E731
        load()
        with hftrace.trace(tmp_path / "out.json"):
            before = [used(resource.RUSAGE_THREAD), used(resource.RUSAGE_SELF)]
            load()
            after = [used(resource.RUSAGE_THREAD), used(resource.RUSAGE_SELF)]
    finally:
        torch.set_num_threads(threads)
    own, whole = (
        [last - first for first, last in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)
    )
    return SimpleNamespace(trace=hftrace.Trace.open(tmp_path / "out.json"), own=own, whole=whole)


def test_the_clocks_of_a_load_are_those_of_its_thread(loaded):
    load = loaded.trace.loads[0]
    spent, minor, major = loaded.own
    found = (load.cpu_user_ns + load.cpu_system_ns) / 1e9
    # What hftrace does around a span is the thread's time, and not the span's.
    assert found <= spent + 0.001
    assert found == pytest.approx(spent, rel=0.2, abs=0.05)
    assert load.minor_faults <= minor
    assert load.minor_faults == pytest.approx(minor, rel=0.2, abs=300)
    assert load.major_faults <= major


def test_the_clocks_of_reader_threads(loaded):
    weights = next(span for span in loaded.trace.spans if span.phase == "weights")
    if not any(row.thread not in (None, weights.thread) for row in loaded.trace.tensors):
        assert weights.cpu_user_ns + weights.cpu_system_ns > 0
        pytest.skip("this loader reads on its own thread")
    readers = weights.attributes["readers"]
    assert {row["thread"] for row in readers} >= {row.thread for row in loaded.trace.tensors if row.thread}
    spent = sum(row["user_ns"][-1] + row["system_ns"][-1] for row in readers) / 1e9
    others = loaded.whole[0] - loaded.own[0]
    assert 0.7 * others <= spent <= others + 0.02
    faults = sum(row["minor_faults"][-1] for row in readers)
    assert faults == pytest.approx(loaded.whole[1] - loaded.own[1], rel=0.3, abs=500)
    for row in readers:
        assert -50_000_000 < row["born_ns"] < weights.duration_ns
        assert row["time_ns"] == sorted(row["time_ns"])
        assert row["user_ns"] == sorted(row["user_ns"])


def test_samples_count_faults(loaded):
    rows = [sample for sample in loaded.trace.samples if sample.minor_faults is not None]
    assert len(rows) >= 2
    assert all(0 <= sample.cpu_system_ns <= sample.cpu_ns for sample in rows)
    faults = [sample.minor_faults for sample in rows]
    assert faults == sorted(faults)
    assert faults[-1] - faults[0] <= loaded.whole[1] + 5000
