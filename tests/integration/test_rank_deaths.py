"""One rank is killed at a random moment: the trace says which died first, and what the others were in."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import small_llama

import hftrace
from hftrace.render.ranks import endings_words

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.long]

SCRIPT = Path(__file__).parent / "rank_deaths.py"
MOMENTS = 10
SEED = 16
PATIENCE_SECONDS = 60
"""What is left of the dead puts their trace together within so long."""
NEAR_NS = 60_000_000
"""Of somebody who entered a call, or left it, so near to the kill, nobody knows where he was."""


def was_in(job, rank, moment_ns):
    """Returns what a rank says that it was in at a moment; None where that is not sure."""
    inside, entered = "", None
    path = job / f"says{rank}.txt"
    for line in path.read_text().splitlines() if path.exists() else ():
        what, word, time_ns = line.split()
        if abs(int(time_ns) - moment_ns) < NEAR_NS:
            return None
        if int(time_ns) < moment_ns:
            inside, entered = (what, int(time_ns)) if word == "begins" else ("", None)
    return inside if entered is not None else ""


def is_put_together(job):
    return sorted(path.name for path in job.glob("*trace*")) == ["trace.json"]


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_rank_that_dies_at_any_moment_is_named_first(tmp_path, run_python, ranks):
    small_llama.write(tmp_path / "model", shards="1GB")
    (tmp_path / "tmp").mkdir()
    environment = {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp")}
    done = run_python(SCRIPT, tmp_path, str(ranks), str(MOMENTS), str(SEED), env=environment, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    until = time.monotonic() + PATIENCE_SECONDS
    jobs = [tmp_path / f"job{number}" for number in range(MOMENTS)]
    # Each is made by what is left of its rank, and the last of them puts all together.
    while time.monotonic() < until and not all(map(is_put_together, jobs)):
        time.sleep(0.5)
    killed = sure = 0
    for job in jobs:
        truth = json.loads((job / "truth.json").read_text())
        assert sorted(path.name for path in job.glob("*trace*")) == ["trace.json"], (truth, done.stderr)
        trace = hftrace.Trace.open(job / "trace.json")
        assert trace.header["ranks"] == [*range(ranks)], truth
        first, *others = trace.outcome["by_rank"]
        if not truth["killed"]:
            assert first["status"] == "ok"
            continue
        killed += 1
        if first["status"] == "ok":
            # It was killed when all was done and written, or while it put the traces together.
            assert {each["status"] for each in others} == {"ok"}
            continue
        assert (first["rank"], first["status"]) == (truth["victim"], "killed"), truth
        words = endings_words(trace)
        assert words.startswith(f"rank {truth['victim']} was killed")
        for each in others:
            where = was_in(job, each["rank"], truth["moment_ns"])
            if where:
                sure += 1
                assert each["open_name"] == where, (truth, each)
                named = re.search(rf"ranks? ([\d, ]+) waited in {where} then", words)
                assert named is not None, (truth, words)
                assert str(each["rank"]) in words
    assert killed > MOMENTS // 2
    assert sure  # at some moment somebody waited, and the trace has said so
