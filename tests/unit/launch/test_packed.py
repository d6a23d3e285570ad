"""A trace that nobody has asked for is kept as its compressed document."""

from __future__ import annotations

import dataclasses

import pytest

import hftrace
from hftrace.launch import in_process
from hftrace.launch import packed as module


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_what_was_packed_is_the_trace(name, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MIN_CELLS", 1)
    path = tmp_path / name
    with hftrace.trace(path, sample_hz=100) as recorded, recorded.step("a step of the caller's"):
        pass
    assert isinstance(recorded._finished, module.Packed)
    assert recorded.finished
    there = hftrace.Trace.open(path)
    path.unlink()
    trace = recorded.trace
    assert recorded.trace is trace
    assert [span.name for span in trace.spans] == ["a step of the caller's"]
    for field in dataclasses.fields(there):
        one, other = getattr(there, field.name), getattr(trace, field.name)
        assert getattr(one, "columns", one) == getattr(other, "columns", other)


def test_what_is_small_or_not_written_stays_as_it_is(tmp_path):
    with hftrace.trace(tmp_path / "trace.json", sample_hz=0) as small:
        pass
    assert not isinstance(small._finished, module.Packed)
    assert in_process.packed(small._finished, None) is small._finished


def test_a_file_that_is_gone_at_once_costs_nothing(tmp_path, monkeypatch):
    with hftrace.trace(tmp_path / "trace.json", sample_hz=0) as recorded:
        pass
    monkeypatch.setattr(module, "MIN_CELLS", 0)
    assert module.packed(recorded._finished, tmp_path / "gone.json") is recorded._finished
