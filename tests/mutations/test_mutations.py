"""A few of the damaged traces and runs that ``mutate.py`` tries by the thousand: no command fails at any."""

import pytest
from mutate import Tries, small_documents

TRACES, RUNS = 100, 10


@pytest.mark.once
def test_damaged_traces_and_runs(tmp_path):
    tries = Tries(tmp_path, 12, None, small_documents(), 1)
    for number in range(TRACES):
        tries.trace(number)
    for number in range(RUNS):
        tries.run(number)
    counts = tries.report.counts
    assert tries.report.failures == []
    # Both kinds are there: what is refused, and what is read all the same.
    assert counts["traces refused"] > TRACES // 5
    assert counts["traces read"] > TRACES // 5
    assert counts["runs recovered"] > RUNS // 2
