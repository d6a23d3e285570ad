"""The recorded examples stay readable, and tell one story over four loader generations."""

from __future__ import annotations

from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.summary import summary

EXAMPLES = Path(__file__).resolve().parents[2] / "traces" / "examples"
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
        # from_pretrained's own body takes 1 to 2 ms, which is over 1 % of a load of 0.15 s.
        assert summary(trace)["attributed"] >= 0.98


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


def test_no_path_of_a_machine():
    for path in EXAMPLES.glob("*.json"):
        trace = hftrace.Trace.open(path)
        for row in trace.files:
            assert row.path is None or not row.path.startswith("/"), (path.name, row.path)
