"""A job over two nodes with clocks of their own: a trace of each, which merge by their first barrier."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_llama
from namespaces import ADDRESSES, AHEAD_SECONDS, LINK, two_nodes

import hftrace
from hftrace.analysis.ranks.job import job_of
from hftrace.render.ranks import ranks_words

pytestmark = [pytest.mark.integration, pytest.mark.once, pytest.mark.long]

SCRIPT = Path(__file__).parent / "rank_script.py"
PORT = 29516
"""In namespaces of their own nobody else has it."""
SKEW_NS = 300_000_000
"""How much later than another rank one may leave a barrier where processors are busy."""


@pytest.fixture
def nodes():
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(two_nodes())
        except OSError as error:
            pytest.skip(f"two nodes cannot be made here: {error}")
        yield found


def test_two_nodes_merge_by_their_first_barrier(tmp_path, nodes, run_python):
    small_llama.write(tmp_path / "model", shards="1GB")
    words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"]
    words += ["--master-addr", ADDRESSES[0], "--master-port", str(PORT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LINK}
    launchers = [
        subprocess.Popen(
            [*node, *words, "--node-rank", str(number), SCRIPT, tmp_path, "ends"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, node in enumerate(nodes)
    ]
    said = [launcher.communicate(timeout=300)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], said[0][-2000:] + said[1][-2000:]
    names = ("trace.json", "trace.node1.json")
    assert sorted(path.name for path in tmp_path.glob("*trace*")) == sorted(names)
    parts = [hftrace.Trace.open(tmp_path / name) for name in names]
    assert [part.header["ranks"] for part in parts] == [[0, 1], [2, 3]]
    # Their clocks have nothing in common.
    bases = [part.header["clock_base_ns"] for part in parts]
    assert bases[1] - bases[0] > (AHEAD_SECONDS - 100) * 10**9

    merged = run_python("-m", "hftrace", "merge", *names, "-o", "all.json", cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    whole = hftrace.Trace.open(tmp_path / "all.json")
    assert whole.header["ranks"] == [0, 1, 2, 3]
    assert (whole.header["merged"]["clocks"], whole.header["merged"]["machines"]) == ("barrier", 2)
    # Both nodes have one wall clock: what each rank read of it when its load began is the truth.
    starts = {load.rank: load.start_ns for load in whole.loads}
    walls = {rank: int((tmp_path / f"wall{rank}.txt").read_text()) for rank in range(4)}
    for rank in (1, 2, 3):
        assert abs((starts[rank] - starts[0]) - (walls[rank] - walls[0])) < SKEW_NS
    job = job_of(whole)
    assert [machine.ranks for machine in job.machines] == [(0, 1), (2, 3)]
    assert [rank.loads for rank in job.ranks] == [1] * 4
    assert "on 2 machines, clocks by the first barrier" in ranks_words(whole)
