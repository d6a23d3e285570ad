"""Cast after the load: through a narrower dtype a weight is no longer the file's."""

from __future__ import annotations

import torch
from adapters import load_base, make_base, provenances, rows_of

from hftrace.analysis.findings.registry import findings


def make(folder):
    make_base(folder)


def load(folder):
    model = load_base(folder, torch_dtype=torch.float32)
    model.lm_head.to(torch.bfloat16)
    return model.to(torch.float64)


def check(trace, model, folder):
    assert provenances(trace) == {"checkpoint": 20, "computed": 1}
    (row,) = rows_of(trace, "lm_head")
    assert (row.dtype, row.evidence) == ("float64", "cast_through")
    # What the load itself left, it was asked for.
    assert {row.dtype for row in trace.at_return if row.keys} == {"float32"}
    # Others may tell what took long: that is the machine's doing.
    rules = {finding.rule for finding in findings(trace)}
    assert "R41" in rules
    assert not rules & {"R42", "R43", "H04"}
