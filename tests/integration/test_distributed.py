"""Loads over two and four ranks: each rank's ledger is of what that rank holds, and one trace holds them all.

gloo on CPUs: NCCL goes by the same path, and was not tried.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_llama
import transformers

import hftrace
from hftrace.analysis.ranks.each import ranks_of

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
COLWISE = [f"self_attn.{name}_proj.weight" for name in "qkv"] + ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
ROWWISE = ["self_attn.o_proj.weight", "mlp.down_proj.weight"]


@pytest.fixture
def over_ranks(tmp_path, run_python):
    """Runs ``distributed_runner.py``, and returns what each rank found."""
    small_llama.write(tmp_path / "model", shards="1GB", num_attention_heads=4, num_key_value_heads=4)

    def run(how, ranks=2):
        done = run_python(
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(ranks),
            HERE / "distributed_runner.py",
            how,
            tmp_path,
            env={"OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-6000:]
        every = range(ranks)
        results = [json.loads((tmp_path / f"result{rank}.json").read_text()) for rank in every]
        for rank, result in enumerate(results):
            assert result["wrong"] == []
            assert result["errors"] == []
            assert result["unused"] == []
            assert (result["ranks"], result["of"]) == ([rank], ranks)
            assert f"hftrace: rank {rank} of {ranks} wrote {tmp_path}/trace" in done.stderr
            # What the kernel says of the maps of the checkpoint, at the same moment.
            assert sum(result["touched"]) == pytest.approx(result["smaps"], rel=0.02)
        assert f"which holds all {ranks} ranks" in done.stderr
        assert sorted(path.name for path in tmp_path.glob("trace*")) == ["trace.json"]
        whole = hftrace.Trace.open(tmp_path / "trace.json")
        assert whole.header["ranks"] == [*every]
        facts = ranks_of(whole)
        for rank, result in enumerate(results):
            own = [row for row in whole.tensors if row.rank == rank and row.kind == "parameter"]
            assert sorted(row.name for row in own) == result["names"]
            assert sorted(row.name for row in own if row.global_shape is not None) == result["parts"]
            assert sum(row.bytes for row in own) == result["bytes"]
            assert facts[rank].held_bytes == result["held"]
            assert facts[rank].divided == len(result["parts"])
            assert facts[rank].touched_bytes == sum(result["touched"])
        return results

    return run


def of_all_layers(names):
    return {f"model.layers.{layer}.{name}" for layer in (0, 1) for name in names}


FOUR = pytest.param(4, marks=pytest.mark.long)


@pytest.mark.skipif(VERSION < (4, 48), reason="no tensor parallelism yet")
@pytest.mark.skipif(VERSION[:2] == (4, 50), reason="4.50 shards on an accelerator alone")
@pytest.mark.parametrize("ranks", [2, FOUR])
def test_tensor_parallel(over_ranks, ranks):
    for result in over_ranks("tp_plan", ranks):
        # Of how many bytes a rank has read its parts was not seen.
        assert (result["read"], result["rate"]) == ([None], None)
        parts = set(result["parts"])
        assert of_all_layers(COLWISE + ROWWISE) <= parts
        assert not [name for name in parts if "norm" in name]
        assert parts <= of_all_layers(COLWISE + ROWWISE) | {"lm_head.weight", "model.embed_tokens.weight"}


@pytest.mark.long
def test_a_copy_on_each_of_four_ranks(over_ranks):
    for result in over_ranks("plain", 4):
        assert result["parts"] == []
        assert result["read"][0] > 0
        if VERSION >= (5, 0):  # which leaves weights of their stored dtype in the map of their file
            assert result["smaps"] > 0


@pytest.mark.skipif(VERSION < (5, 24), reason="distributed_config is new")
@pytest.mark.parametrize("ranks", [2, FOUR])
@pytest.mark.parametrize("how", ["tp_size", "fsdp_size"])
def test_a_distributed_config(over_ranks, how, ranks):
    for result in over_ranks(how, ranks):
        kept = set(result["names"]) - set(result["parts"])
        # What a plan of tensor parallelism does not name is replicated; FSDP cuts everything.
        assert all("norm" in name for name in kept)
        assert bool(kept) == (how == "tp_size")


@pytest.mark.skipif(VERSION < (5, 24), reason="distributed_config is new")
def test_keys_of_another_stage_are_not_unused(over_ranks):
    first, second = over_ranks("pp_size")
    assert not set(first["names"]) & set(second["names"])
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= {*first["names"], *second["names"]}
    assert "unused-keys" not in first["findings"] + second["findings"]


@pytest.mark.once
def test_ranks_without_a_launcher_make_one_trace(tmp_path, run_python):
    small_llama.write(tmp_path / "model")
    arguments = ("-m", "hftrace.cli.main", "load", tmp_path / "model", "-q", "-o", tmp_path / "trace.json.gz")
    first = run_python(*arguments, env={"RANK": "0", "WORLD_SIZE": "2"})
    assert first.returncode == 0, first.stderr
    assert f"Wrote {tmp_path}/trace.json.gz (rank 0 of 2)" in first.stderr
    assert hftrace.Trace.open(tmp_path / "trace.json.gz").header["ranks"] == [0]
    last = run_python(*arguments, env={"RANK": "1", "WORLD_SIZE": "2"})
    assert last.returncode == 0, last.stderr
    assert f"Wrote {tmp_path}/trace.json.gz (all 2 ranks)" in last.stderr
    assert hftrace.Trace.open(tmp_path / "trace.json.gz").header["ranks"] == [0, 1]
    assert sorted(path.name for path in tmp_path.glob("*trace*")) == ["trace.json.gz"]
    again = run_python(*arguments, env={"RANK": "0", "WORLD_SIZE": "2"})
    assert again.returncode == 2
    assert "trace.json.gz exists: choose another name, or --force to overwrite it" in again.stderr


@pytest.mark.once
def test_ranks_of_two_jobs_stay_apart(tmp_path, run_python):
    small_llama.write(tmp_path / "model")
    arguments = ("-m", "hftrace.cli.main", "load", tmp_path / "model", "-q", "-o", tmp_path / "trace.json")
    for rank, port in (("0", "1111"), ("1", "2222")):
        done = run_python(*arguments, env={"RANK": rank, "WORLD_SIZE": "2", "MASTER_PORT": port})
        assert done.returncode == 0, done.stderr
    assert hftrace.Trace.open(tmp_path / "trace.json").header["ranks"] == [0]
    assert hftrace.Trace.open(tmp_path / "trace.rank1.json").header["ranks"] == [1]
    merged = run_python(
        "-m", "hftrace.cli.main", "merge", "trace.json", "trace.rank1.json", "-o", "all.json", cwd=tmp_path
    )
    assert merged.returncode == 2
    assert "trace.rank1.json is of another job than trace.json, by its port (2222 and 1111)" in merged.stderr
