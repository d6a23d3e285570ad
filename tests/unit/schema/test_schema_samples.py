"""The sample file of every released version of the format stays readable for ever."""

import dataclasses
import json
from pathlib import Path

import pytest

from hftrace import Trace
from hftrace.schema import document
from hftrace.schema.model import File, Sample, Span, Tensor
from hftrace.schema.vocabulary import PHASES

DATA = Path(__file__).resolve().parents[2] / "data"
SAMPLES = sorted(DATA.glob("trace-*.json"))


def rows(trace):
    return {name: list(getattr(trace, name)) for name in ("spans", "tensors", "files", "samples")}


def test_there_is_a_sample_of_every_version():
    versions = {path.stem.removeprefix("trace-") for path in SAMPLES}
    assert {"1.0", document.VERSION} <= versions


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_sample_is_readable(path):
    trace = Trace.open(path)
    assert trace.header.schema == "hftrace.trace"
    assert trace.header.version == path.stem.removeprefix("trace-")
    assert [load.name for load in trace.loads] == ["LlamaForCausalLM"]
    assert all(rows(trace).values())
    assert {span.phase for span in trace.spans} <= set(PHASES)


def test_sample_of_1_0_says_what_it_said():
    trace = Trace.open(DATA / "trace-1.0.json")
    assert [len(table) for table in rows(trace).values()] == [12, 45, 7, 40]
    assert trace.environment.transformers == "5.23.0"
    assert trace.request["keywords"] == {"dtype": "bfloat16"}
    assert trace.outcome.status == "ok"
    weights = next(span for span in trace.spans if span.phase == "weights")
    assert (weights.parent, weights.device_peak_bytes) == (1, {"cuda:0": 3 << 30})
    first = trace.tensors[0]
    assert (first.name, first.shape, first.keys) == (
        "model.embed_tokens.weight",
        [32000, 2048],
        ["model.embed_tokens.weight"],
    )
    assert first.read_start_ns is not None
    assert first.read_end_ns is not None
    assert first.read_start_ns < first.read_end_ns < first.placed_ns
    unused = next(tensor for tensor in trace.tensors if tensor.kind == "unused")
    assert (unused.name, unused.keys) == (None, ["model.layers.0.self_attn.rotary_emb.inv_freq"])
    assert [file.result for file in trace.files] == ["local", "missing", *["local"] * 4, "downloaded"]
    assert trace.samples[3].storage_read_bytes is None


def test_sample_of_1_1_says_what_it_said():
    trace = Trace.open(DATA / "trace-1.1.json")
    assert [len(table) for table in rows(trace).values()] == [12, 45, 7, 40]
    assert (trace.outcome.status, trace.outcome.killer) == ("killed", "memory-limit")
    # Since 1.1 evidence is a kind and numbers; 1.0 had sentences.
    assert [piece["kind"] for piece in trace.outcome.evidence] == ["limit-reached", "memory"]
    assert trace.outcome.evidence[0]["anonymous_bytes"] == (2 << 30) + 4096


def test_sample_of_1_2_has_requests():
    trace = Trace.open(DATA / "trace-1.2.json")
    assert [request.status for request in trace.requests] == [503, 302, None, 200]
    assert [request.failed for request in trace.requests] == [True, False, True, False]
    assert len(Trace.open(DATA / "trace-1.1.json").requests) == 0


def test_sample_of_1_3_has_imports():
    trace = Trace.open(DATA / "trace-1.3.json")
    assert [row.name for row in trace.imports] == ["transformers", "scipy.optimize", None, None]
    assert trace.imports[1].guard == "if is_scipy_available()"
    assert [row.duration_ns for row in trace.imports] == [895_000_000, 400_000_000, None, None]
    assert len(Trace.open(DATA / "trace-1.2.json").imports) == 0


def test_sample_has_every_column_and_encoding():
    raw = json.loads((DATA / "trace-1.0.json").read_text())
    encodings = set()
    for table, row_type in (("spans", Span), ("tensors", Tensor), ("files", File), ("samples", Sample)):
        # A column that came later has a default, with which the sample is read.
        required = {
            field.name for field in dataclasses.fields(row_type) if field.default is dataclasses.MISSING
        }
        assert required <= set(raw[table])
        assert set(raw[table]) <= {field.name for field in dataclasses.fields(row_type)}
        encodings |= {"list" if isinstance(c, list) else c["encoding"] for c in raw[table].values()}
    assert encodings == {"list", "constant", "dictionary", "delta", "reference"}


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_written_again_it_is_the_same(sample_trace, tmp_path, suffix):
    trace = Trace.open(sample_trace)
    copy = tmp_path / f"copy{suffix}"
    trace.save(copy)
    again = Trace.open(copy)
    assert rows(again) == rows(trace)
    # What is written is in the version of today.
    assert dict(again.header) == {**trace.header, "version": document.VERSION}
    for block in ("environment", "request", "outcome"):
        assert dict(getattr(again, block)) == dict(getattr(trace, block))
    data = copy.read_bytes()
    again.save(copy)
    assert copy.read_bytes() == data


def test_header_comes_first(sample_trace):
    assert sample_trace.read_text().startswith('{"header":{"schema":"hftrace.trace","version":"1.0"')
