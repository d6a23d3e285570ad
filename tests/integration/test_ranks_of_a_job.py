"""Ranks that end, die or record nothing: what each has recorded is in the one file that they named."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rank_script
import small_llama

import hftrace
from evictable import resident_anywhere
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.ranks.job import job_of
from hftrace.render.ranks import ranks_words
from hftrace.replay.merging.merge import merge
from hftrace.system import page_cache

pytestmark = [pytest.mark.integration, pytest.mark.sparse]

SCRIPT = Path(__file__).parent / "rank_script.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
FROM_THE_DEAD_SECONDS = 20


@pytest.fixture
def job(tmp_path, run_python):
    """Runs ``rank_script.py`` on two ranks; returns the trace, and what was said."""
    small_llama.write(tmp_path / "model", shards="1GB")
    (tmp_path / "tmp").mkdir()

    def run(*how, before=(), **variables):
        environment = {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "tmp"), **variables}
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


def test_a_straggler_is_named_with_its_phase_and_the_other_one_waits_for_it(job):
    trace, done = job("straggles", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    facts = job_of(trace)
    assert (facts.slowest.rank, facts.slowest.than, facts.slowest.phase) == (1, 0, "instantiate")
    assert facts.slowest.phase_by_ns == pytest.approx(rank_script.STRAGGLE_SECONDS * 1e9, rel=0.3)
    # Who is ready first is in the barrier until the last one comes, less what it began its load later.
    waited = [rank.wait_ns for rank in facts.ranks]
    assert waited[0] - waited[1] > 0.5e9
    assert "rank 1 is the slowest" in ranks_words(trace)
    # A part of what the rank is slower by, or more than that, where the other one is slower in another phase.
    assert re.search(r" of it in instantiate|, in instantiate by ", ranks_words(trace))


@pytest.mark.once
def test_what_came_from_storage_is_what_the_kernel_counted(job, tmp_path):
    small_llama.write(tmp_path / "model", shards="1GB", hidden_size=512, vocab_size=8192)
    file = tmp_path / "model" / "model.safetensors"
    page_cache.evict([file])
    if resident_anywhere(file) != 0:
        pytest.skip("this file system keeps its files in memory, or does not say what is in the page cache")
    trace, done = job("reads")
    assert done.returncode == 0, done.stderr[-3000:]
    counted = [json.loads((tmp_path / f"read{rank}.json").read_text()) for rank in (0, 1)]
    facts = job_of(trace)
    assert facts.checkpoint_bytes == file.stat().st_size
    # Between the edges of the phase and of the call a rank reads next to nothing.
    for rank, size in zip(facts.ranks, counted, strict=True):
        assert abs(rank.storage_read_bytes - size) <= max(0.02 * size, 200_000)
    assert facts.read_amplification == pytest.approx(sum(counted) / file.stat().st_size, abs=0.05)
    assert 0.5 < facts.read_amplification < 1.5
    names = {row.name: row for row in trace.tensors if row.rank == 0 and row.kind == "parameter"}
    assert facts.ranks[0].held_bytes >= sum(row.bytes for row in names.values())


RANKS_RULES = {"full-copy-per-rank", "read-amplification"}
FOR_ALL = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "1"}


@pytest.mark.once
@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "variables", "expected"),
    [
        # The first rank was to load for all, and each has: with a copy of its own, and read anew.
        ("reads-again", FOR_ALL, RANKS_RULES),
        # A replica on each rank that nobody asked to divide, read once by one for both.
        ("reads", {}, set()),
        # Divided, with its own cast: what a plan replicates is no copy that nobody needs.
        ("divided", {}, set()),
    ],
)
def test_copies_and_bytes_read_twice_are_findings(job, tmp_path, how, variables, expected):
    large = {"hidden_size": 1024, "vocab_size": 32000, "num_attention_heads": 8, "num_key_value_heads": 8}
    small_llama.write(tmp_path / "model", shards="1GB", **large)
    file = tmp_path / "model" / "model.safetensors"
    page_cache.evict([file])
    if how != "divided" and resident_anywhere(file) != 0:
        pytest.skip("this file system keeps its files in memory, or does not say what is in the page cache")
    trace, done = job(how, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {finding.name: finding for finding in findings(trace) if finding.name in RANKS_RULES}
    assert set(found) == expected
    if not expected:
        return
    size = file.stat().st_size
    assert found["read-amplification"].numbers["amplification"] == pytest.approx(2, abs=0.1)
    assert found["read-amplification"].cost_bytes == pytest.approx(size, rel=0.1)
    copies = found["full-copy-per-rank"].numbers
    assert (copies["ranks"], copies["rank"]) == (1, 1)
    # In float32, twice the file, and the rank was to have half of that, or none yet.
    assert copies["committed_bytes"] == pytest.approx(2 * size, rel=0.1)
    assert "ACCELERATE_USE_FSDP=true" in found["full-copy-per-rank"].evidence


@pytest.mark.once
@pytest.mark.long
def test_two_launchers_make_a_file_each_which_merge(tmp_path):
    small_llama.write(tmp_path / "model", shards="1GB")
    words = ("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2")
    place = ("--master-addr", "127.0.0.1", "--master-port", str(free_port()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launchers = [
        subprocess.Popen(
            [
                sys.executable,
                *words,
                *place,
                "--node-rank",
                node,
                os.fspath(SCRIPT),
                os.fspath(tmp_path),
                "ends",
            ],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in "01"
    ]
    said = [launcher.communicate(timeout=300)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], said[0][-2000:] + said[1][-2000:]
    names = ("trace.json", "trace.node1.json")
    assert sorted(path.name for path in tmp_path.glob("*trace*")) == sorted(names)
    nodes = [hftrace.Trace.open(tmp_path / name) for name in names]
    assert [node.header["ranks"] for node in nodes] == [[0, 1], [2, 3]]
    whole = merge(zip(names, nodes, strict=True))
    assert whole.header["ranks"] == [0, 1, 2, 3]
    # One machine, whatever the launchers call it: one clock. Nobody leaves a barrier before all have come.
    assert whole.header["merged"]["clocks"] == "monotonic"
    barriers = [
        next(row for row in whole.spans if row.name == "barrier" and row.rank == rank) for rank in range(4)
    ]
    assert max(row.start_ns for row in barriers) <= min(row.end_ns for row in barriers)
    assert [rank.loads for rank in job_of(whole).ranks] == [1] * 4


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
