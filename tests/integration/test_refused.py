"""Loads that end because something did not fit: the finding names it, and nothing is said to be placed."""

from __future__ import annotations

import pytest
import transformers

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.launch.ending.explanation import explain_failure
from hftrace.render.screen import next_command

pytestmark = pytest.mark.integration


def small(labels):
    return transformers.BertConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=labels,
    )


@pytest.fixture
def checkpoint(tmp_path):
    transformers.BertForSequenceClassification(small(6)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def traced(checkpoint, error, **keywords):
    with pytest.raises(error), hftrace.trace(sample_hz=0) as recorded:
        transformers.BertForSequenceClassification.from_pretrained(checkpoint, **keywords)
    return recorded.trace


@pytest.mark.skipif(int(transformers.__version__[0]) < 5, reason="4.x raises while it compares")
def test_a_key_of_another_shape(checkpoint):
    trace = traced(checkpoint, RuntimeError, num_labels=3)
    (finding,) = [each for each in findings(trace) if each.rule == "R31"]
    assert "classifier.weight [6, 16]" in finding.evidence
    rows = {row.keys[0]: row for row in trace.tensors}
    row = rows["classifier.weight"]
    assert (row.provenance, row.evidence, row.placed_ns) == (None, "mismatched", None)
    assert rows["bert.pooler.dense.weight"].provenance == "checkpoint"


def test_a_keyword_that_nothing_takes(checkpoint):
    trace = traced(checkpoint, TypeError, low_cpu_mem_useage=True)
    (finding,) = [each for each in findings(trace) if each.rule == "R26"]
    assert finding.advice == "Did you mean low_cpu_mem_usage?"
    assert finding.concerns == "ending", "it was not ignored"
    assert findings(trace)[0] is finding
    assert next_command(trace, "t.json") == "hftrace show t.json --view postmortem"
    said = explain_failure(trace)
    assert said.startswith("nothing takes the keyword low_cpu_mem_useage: did you mean low_cpu_mem_usage? (")
    assert "unexpected keyword argument" in said


def test_a_dtype_goes_by_the_name_that_this_loader_knows(checkpoint):
    trace = traced(checkpoint, TypeError, torch_dtpe="float32")
    (finding,) = [each for each in findings(trace) if each.rule == "R26"]
    known = "torch_dtype" if transformers.__version__ < "4.56" else "dtype"
    assert finding.advice == f"Did you mean {known}?"


def test_a_shard_that_is_not_there(tmp_path):
    model = transformers.BertForSequenceClassification(small(6))
    model.save_pretrained(tmp_path / "model", max_shard_size="5KB")
    shard = sorted((tmp_path / "model").glob("model-*.safetensors"))[1]
    shard.unlink()
    trace = traced(tmp_path / "model", OSError)
    assert [file.result for file in trace.files if file.name == shard.name] == ["missing"]
