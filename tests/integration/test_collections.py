"""Full garbage collections inside real loads: each has its span, and what they cost is a finding."""

from __future__ import annotations

import gc
import inspect
import threading

import pytest

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.phases import attributed_share, phase_times, recorded_wall_ns
from hftrace.analysis.time.spans import SpanIndex
from hftrace.synth import plan, write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.integration

SHARDS_COLLECT = "gc.collect" in inspect.getsource(transformers.PreTrainedModel._load_pretrained_model)
"""Whether this transformers collects after every shard: up to 4.49."""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    path = tmp_path_factory.mktemp("collections") / "llama"
    write(plan("llama-2-7b", size="2MB", max_shard_size="500kB"), path)
    return path


class Collecting(transformers.LlamaForCausalLM):
    """A model whose code collects garbage, as that of some quantised models does."""

    def __init__(self, config):
        super().__init__(config)
        # Whether one was due is told from how many objects wait: none does now.
        gc.collect(1)
        gc.collect()


def traced(path, owner=transformers.AutoModelForCausalLM):
    with hftrace.trace(sample_hz=0) as recorded:
        owner.from_pretrained(str(path))
    assert not recorded.trace.header["errors"]
    return recorded.trace


def collections(trace):
    return [span for span in trace.spans if span.phase == "collect"]


@pytest.fixture(scope="module")
def warm(sharded):
    """What a load imports has been imported."""
    transformers.AutoModelForCausalLM.from_pretrained(str(sharded))


@pytest.mark.skipif(not SHARDS_COLLECT, reason="this transformers does not collect after a shard")
def test_the_collection_after_every_shard(sharded, warm):
    trace = traced(sharded)
    shards = len(list(sharded.glob("*.safetensors")))
    assert shards > 3
    index = SpanIndex(trace.spans)
    names = {span.id: span.function for span in trace.spans}
    made = [span for span in collections(trace) if not span.attributes["automatic"]]
    assert len(made) == shards
    assert {names[span.parent] for span in made} == {"PreTrainedModel._load_pretrained_model"}
    weights = next(span for span in trace.spans if span.phase == "weights")
    spent = sum(span.duration_ns for span in made)
    assert index.self_ns(index.row_of[weights.id]) <= weights.duration_ns - spent
    (found,) = [finding for finding in findings(trace) if finding.name == "full-collections"]
    assert found.rule == "R09"
    assert found.cost_ns >= spent
    assert f"{shards} calls of gc.collect in _load_pretrained_model" in found.evidence
    assert "upgrade" in found.advice


@pytest.mark.skipif(not SHARDS_COLLECT, reason="this transformers does not collect after a shard")
def test_a_frozen_process_is_collected_quickly(sharded, warm):
    """The advice of the finding is true."""
    before = sum(span.duration_ns for span in collections(traced(sharded)))
    gc.collect()
    gc.freeze()
    try:
        after = sum(span.duration_ns for span in collections(traced(sharded)))
    finally:
        gc.unfreeze()
    assert after < before / 3


def test_a_collection_that_the_models_code_asks_for(sharded, warm):
    trace = traced(sharded, Collecting)
    spans = {span.id: span for span in trace.spans}
    inside = [span for span in collections(trace) if spans[span.parent].phase == "instantiate"]
    # Python may find one due by itself as well.
    (made,) = [span for span in inside if not span.attributes["automatic"]]
    assert made.name == "gc.collect"
    above = spans[made.parent]
    assert above.phase == "instantiate"
    assert above.start_ns <= made.start_ns < made.end_ns <= above.end_ns
    assert sum(phase_times(trace).values()) == recorded_wall_ns(trace)
    assert attributed_share(trace) > 0.95


def test_a_collection_of_another_thread_stops_the_load_too(sharded, warm, monkeypatch):
    post_init = transformers.PreTrainedModel.post_init
    threads = []

    def collect():
        threads.append(threading.get_native_id())
        gc.collect()

    def collecting(model):
        worker = threading.Thread(target=collect)
        worker.start()
        worker.join()
        post_init(model)

    monkeypatch.setattr(transformers.PreTrainedModel, "post_init", collecting)
    trace = traced(sharded)
    spans = {span.id: span for span in trace.spans}
    made = [span for span in collections(trace) if span.thread in threads]
    assert made
    assert {spans[span.parent].thread for span in made} == {trace.loads[0].thread}
    assert sum(phase_times(trace).values()) == recorded_wall_ns(trace), (
        "what another thread did is not the load's own"
    )


def test_without_a_full_collection_there_is_no_span(sharded, warm):
    if SHARDS_COLLECT:
        pytest.skip("this transformers collects after a shard")
    gc.collect()
    gc.disable()
    try:
        trace = traced(sharded)
    finally:
        gc.enable()
    assert collections(trace) == []
