"""Budgets for the start of a service, in pytest.

    pytest examples/test_service_start.py --hftrace-dir traces/ci --junitxml report.xml

The plugin comes with hftrace. The first test fails where the load is slower,
larger, casts a weight or asks the network; the second looks at a trace itself.
"""

from __future__ import annotations

from typing import Any

import pytest
from service_start import Service, small_model


@pytest.mark.limit_load(seconds=60, peak="4GB", forbid=["cast", "network", "initialized"])
def test_the_service_starts_within_its_budget() -> None:
    assert Service(small_model()).parameters() > 1_000_000


def test_every_weight_is_from_the_checkpoint(hftrace: Any) -> None:
    model = small_model()
    with hftrace.trace("start") as recorded:
        Service(model)
    parameters = [row for row in recorded.trace.tensors if row.kind == "parameter"]
    assert parameters
    assert {row.provenance for row in parameters} <= {"checkpoint", "tied"}
