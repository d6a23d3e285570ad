"""Loads under DeepSpeed's ZeRO-3, whose parameters are taken apart: said, and nothing else of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.findings.registry import findings

pytestmark = [pytest.mark.integration]
HERE = Path(__file__).parent
RECORDED = HERE.parent / "data" / "deepspeed" / "zero3-5.24.0.json.gz"


def check(trace: hftrace.Trace) -> None:
    said = {finding.name: finding for finding in findings(trace) if finding.severity != "info"}
    assert list(said) == ["not-supported"]
    assert said["not-supported"].title == "DeepSpeed ZeRO-3 is not supported"
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert len(rows) == 21
    # No shape of these is the model's, and of none is it claimed that it came from the file.
    assert {(tuple(row.shape), row.provenance) for row in rows} == {((0,), "unknown")}


def test_what_was_recorded_on_a_real_one():
    check(hftrace.Trace.open(RECORDED))


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_a_load_on_the_cpu(run_python, tmp_path):
    out = tmp_path / "out.json"
    done = run_python(HERE / "deepspeed_program.py", tmp_path / "model", out, timeout=300)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    found = json.loads(line.removeprefix("FOUND"))
    assert {tuple(here) for here, _ in found.values()} == {(0,)}, "so it is what the test is about"
    check(hftrace.Trace.open(out))
