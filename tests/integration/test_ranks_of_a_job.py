"""Ranks that end, die or record nothing: what each has recorded is in the one file that they named."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import small_llama

import hftrace

pytestmark = [pytest.mark.integration, pytest.mark.sparse]

SCRIPT = Path(__file__).parent / "rank_script.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
FROM_THE_DEAD_SECONDS = 20


@pytest.fixture
def job(tmp_path, run_python):
    """Runs ``rank_script.py`` on two ranks; returns the trace, and what was said."""
    small_llama.write(tmp_path / "model", shards="1GB")
    (tmp_path / "tmp").mkdir()

    def run(*how, before=()):
        environment = {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp")}
        done = run_python(*TORCHRUN, *before, SCRIPT, tmp_path, *how, env=environment, timeout=300)
        until = time.monotonic() + FROM_THE_DEAD_SECONDS
        while time.monotonic() < until and not (tmp_path / "trace.json").exists():
            time.sleep(0.2)  # what is left of the dead puts it together when torchrun has gone
        while time.monotonic() < until and list(tmp_path.glob("trace.rank*")):
            time.sleep(0.2)
        assert sorted(path.name for path in tmp_path.glob("*trace*")) == ["trace.json"], done.stderr[-3000:]
        return hftrace.Trace.open(tmp_path / "trace.json"), done

    return run


def test_the_last_rank_makes_one_trace_of_both(job, tmp_path):
    trace, done = job("ends")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (trace.header["ranks"], trace.header["world_size"]) == ([0, 1], 2)
    assert trace.header["merged"]["clocks"] == "monotonic"
    assert [each["status"] for each in trace.outcome["by_rank"]] == ["ok", "ok"]
    assert {load.rank for load in trace.loads} == {0, 1}
    for rank in (0, 1):
        own = [row for row in trace.spans if row.rank == rank]
        assert [row.name for row in own if row.phase == "wait"] == ["barrier", "barrier"]
        assert [row.name for row in own if row.phase == "mesh"] == ["init_process_group"]
    # Nobody leaves a barrier before the last one has come to it: one clock shows it.
    first, second = (
        next(row for row in trace.spans if row.name == "barrier" and row.rank == rank) for rank in (0, 1)
    )
    assert max(first.start_ns, second.start_ns) <= min(first.end_ns, second.end_ns)
    assert not list((tmp_path / "tmp").glob("hftrace-*"))


def test_a_rank_that_was_killed_is_in_the_trace_and_named_first(job, tmp_path):
    trace, done = job("dies", "1")
    assert done.returncode != 0
    first, second = trace.outcome["by_rank"]
    assert (first["rank"], first["status"]) == (1, "killed")
    assert (second["rank"], second["open_name"], second["open_phase"]) == (0, "barrier", "wait")
    # Whose peer is gone gets an error, and may be killed by torchrun before it has left its block.
    assert second["status"] in ("error", "killed")
    assert trace.outcome["status"] == "killed"
    assert {load.rank: load.status for load in trace.loads} == {0: "ok", 1: "ok"}
    assert not list((tmp_path / "tmp").glob("hftrace-*"))


def test_of_ranks_that_all_died_somebody_makes_the_trace(job, tmp_path):
    trace, _ = job("all-die", "1")
    first, second = trace.outcome["by_rank"]
    assert (first["rank"], first["status"], first["died_in"], first["last_phase"]) == (
        *(0, "killed"),
        *("barrier", "wait"),
    )
    assert (second["rank"], second["status"]) == (1, "killed")
    assert trace.header["recovered"] is True
    assert not list((tmp_path / "tmp").glob("hftrace-*"))


def test_under_run_the_signal_is_known(job, tmp_path):
    trace, _ = job("dies", "0", before=("-m", "hftrace", "run", "-q", "-o", tmp_path / "trace.json"))
    first, second = trace.outcome["by_rank"]
    assert (first["rank"], first["status"], first["signal"]) == (0, "killed", "SIGKILL")
    assert (second["rank"], second["open_name"]) == (1, "barrier")
    assert trace.outcome["signal"] == "SIGKILL"


def test_a_rank_that_records_nothing_keeps_nobody_waiting(job):
    trace, done = job("stays-out", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (trace.header["ranks"], trace.header["world_size"]) == ([0], 2)
    assert "hftrace: rank 0 of 2 wrote" in done.stderr
