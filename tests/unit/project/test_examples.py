"""The recorded examples stay readable, and tell one story over four loader generations."""

from __future__ import annotations

from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.compare.comparison import compare
from hftrace.analysis.compare.verdicts import WORSE
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.summary import summary
from hftrace.cli.measure import groups_of

EXAMPLES = Path(__file__).resolve().parents[3] / "traces" / "examples"
GENERATIONS = {"A": "4.48.3", "B": "4.50.3", "C": "4.57.6", "D": "5.23.0"}


@pytest.fixture(scope="module")
def traces():
    return {
        letter: hftrace.Trace.open(EXAMPLES / f"llama-{letter}-{version}.json")
        for letter, version in GENERATIONS.items()
    }


def test_generations(traces):
    for letter, trace in traces.items():
        assert trace.environment.generation == letter
        assert trace.environment.transformers == GENERATIONS[letter]
        assert trace.environment.hooks["missing"] == []
        assert trace.outcome.status == "ok"
        assert trace.header.errors == []
        assert summary(trace)["attributed"] >= 0.99


def test_one_story(traces):
    """The same checkpoint and the same keywords: the ledgers agree in all that is not time."""

    def parameters(trace):
        return {
            row.name: (
                row.provenance,
                row.keys,
                row.file,
                row.offset,
                row.stored_dtype,
                row.dtype,
                row.bytes,
                row.device,
            )
            for row in trace.tensors
            if row.kind == "parameter"
        }

    stories = [parameters(trace) for trace in traces.values()]
    assert len(stories[0]) == 21
    assert all(story == stories[0] for story in stories)
    for trace in traces.values():
        rows = {row.name: row for row in trace.files}
        assert rows["model.safetensors"].result == "missing"
        assert rows["config.json"].result == "local"
        assert sum(row.shard is not None for row in trace.files) == 3
        assert {"config", "resolve", "instantiate", "weights", "tie", "generation_config"} <= {
            span.phase for span in trace.spans
        }


def test_offload():
    trace = hftrace.Trace.open(EXAMPLES / "llama-D-5.23.0-offload.json")
    offloaded = {row.name for row in trace.tensors if row.provenance == "offloaded"}
    assert offloaded == {
        row.name for row in trace.tensors if row.name and row.name.startswith("model.layers.1.")
    }


def test_a_gpu_and_one_that_is_too_small():
    """Both on torch's own CUDA allocator; a layer's experts are there beside what is made of them."""
    trace = hftrace.Trace.open(EXAMPLES / "mixtral-D-5.23.0-gpu.json")
    (peak,) = highest_device_peaks(trace)
    assert peak.explained > 0.99
    assert {part.kind for part in peak.parts} >= {"parameters", "copies"}
    full = hftrace.Trace.open(EXAMPLES / "mixtral-D-5.23.0-gpu-full.json").outcome
    assert (full["killer"], full["last_phase"]) == ("out-of-memory", "convert")
    assert full["cause"]["type"] == "OutOfMemoryError"
    assert full["last_tensor"] == "model.layers.1.mlp.experts.gate_up_proj"
    device = full["device"]
    assert device["allocated_bytes"] + device["asked_bytes"] > device["memory_bytes"] - 315_000_000


def compared(name):
    return compare(
        [(group, [hftrace.Trace.open(path) for path in paths]) for group, paths in groups_of(EXAMPLES / name)]
    )


def test_fast_init_against_the_rest():
    """4.48.3 initialises at random what it then reads: with torch's modules first, then with its own."""
    differences = {each.variant.name: each for each in compared("fast-init-4.48.3").differences}
    slow = differences["no-fast-init"]
    assert slow.judgements["returned_ns"].verdict == WORSE
    assert slow.judgements["rss_anon_peak_bytes"].verdict == WORSE
    assert set(list(slow.attribution)[:2]) == {"instantiate", "initialize"}
    assert {"instantiate", "initialize"} <= {
        phase for phase, found in slow.phase_verdicts.items() if found.verdict == WORSE
    }


def test_three_versions_of_one_checkpoint():
    made = compared("versions")
    versions = [variant.typical.environment.transformers for variant in made.variants]
    assert versions == [variant.name for variant in made.variants] == ["5.23.0", "4.57.6", "4.48.3"]
    assert all(len(variant.successful) == 5 for variant in made.variants)
    dtypes = [{row.dtype for row in variant.typical.tensors} for variant in made.variants]
    assert dtypes[0] == dtypes[1] == dtypes[2]


def test_no_path_of_a_machine():
    for path in EXAMPLES.rglob("*.json"):
        if path.name == "comparison.json":
            continue
        trace = hftrace.Trace.open(path)
        for row in trace.files:
            assert row.path is None or not row.path.startswith("/"), (path.name, row.path)
        error = trace.outcome.get("error") or {}
        for line in str(error.get("traceback") or "").splitlines():
            assert 'File "/' not in line, (path.name, line)
