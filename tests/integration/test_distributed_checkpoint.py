"""A distributed checkpoint: one load on each rank, with its files, their bytes and what the rank holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hftrace
from hftrace.analysis.ranks.job import job_of

pytestmark = [pytest.mark.integration, pytest.mark.once]

SCRIPT = Path(__file__).parent / "sharded_runner.py"


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.long)])
def test_each_rank_has_one_load_with_its_files_and_parts(tmp_path, run_python, ranks):
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
    done = run_python(*words, SCRIPT, tmp_path, env={"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    trace = hftrace.Trace.open(tmp_path / "trace.json")
    assert trace.header["errors"] == []
    assert sorted((load.rank, load.name, load.status) for load in trace.loads) == [
        (rank, "dcp.load", "ok") for rank in range(ranks)
    ]
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "sharded").iterdir()}
    for rank in range(ranks):
        truth = json.loads((tmp_path / f"result{rank}.json").read_text())
        assert truth["same"]
        own = [row for row in trace.spans if row.rank == rank]
        whole = next(row for row in own if row.phase == "weights" and row.name == "dcp.load")
        said = {name: whole.attributes[name] for name in ("tensors", "bytes", "divided")}
        assert said == {**dict.fromkeys(("tensors", "divided"), truth["tensors"]), "bytes": truth["bytes"]}
        # Saved and loaded by as many ranks: each needs what it has written, and all of that.
        files = [file for file in trace.files if file.rank == rank and file.shard is not None]
        name = f"__{rank}_0.distcp"
        assert [(each.name, each.read_bytes, each.opened) for each in files] == [(name, sizes[name], True)]
        # One span for all that is read, and not one for each tensor.
        assert [row.name for row in own if row.phase == "shard"] == ["read_data"]
        assert [row.name for row in own if row.phase == "resolve"] == ["read_metadata"]
        waits = [row for row in own if row.phase == "wait"]
        assert [row.name for row in waits] == ["gather_object", "scatter_object", "all_gather_object"]
    job = job_of(trace)
    assert job.checkpoint_bytes == sum(size for name, size in sizes.items() if name != ".metadata")
