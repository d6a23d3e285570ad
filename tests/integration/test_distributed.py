"""Loads over two ranks: each rank's ledger is of what that rank holds, and each has a trace of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_llama
import transformers

import hftrace

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
COLWISE = [f"self_attn.{name}_proj.weight" for name in "qkv"] + ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
ROWWISE = ["self_attn.o_proj.weight", "mlp.down_proj.weight"]


@pytest.fixture
def over_two_ranks(tmp_path, run_python):
    """Runs ``distributed_runner.py``, and returns what each rank found."""
    small_llama.write(tmp_path / "model", shards="1GB")

    def run(how):
        done = run_python(
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            HERE / "distributed_runner.py",
            how,
            tmp_path,
            env={"OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-6000:]
        results = [json.loads((tmp_path / f"result{rank}.json").read_text()) for rank in (0, 1)]
        for rank, result in enumerate(results):
            assert result["wrong"] == []
            assert result["errors"] == []
            assert result["unused"] == []
            assert (result["ranks"], result["of"]) == ([rank], 2)
            name = "trace.json" if rank == 0 else "trace.rank1.json"
            assert f"hftrace: rank {rank} of 2 wrote {tmp_path / name}" in done.stderr
        return results

    return run


def of_all_layers(names):
    return {f"model.layers.{layer}.{name}" for layer in (0, 1) for name in names}


@pytest.mark.skipif(VERSION < (4, 48), reason="no tensor parallelism yet")
@pytest.mark.skipif(VERSION[:2] == (4, 50), reason="4.50 shards on an accelerator alone")
def test_tensor_parallel(over_two_ranks):
    for result in over_two_ranks("tp_plan"):
        # Of how many bytes a rank has read its parts was not seen.
        assert (result["read"], result["rate"]) == ([None], None)
        parts = set(result["parts"])
        assert of_all_layers(COLWISE + ROWWISE) <= parts
        assert not [name for name in parts if "norm" in name]
        assert parts <= of_all_layers(COLWISE + ROWWISE) | {"lm_head.weight", "model.embed_tokens.weight"}


@pytest.mark.skipif(VERSION < (5, 24), reason="distributed_config is new")
@pytest.mark.parametrize("how", ["tp_size", "fsdp_size"])
def test_a_distributed_config(over_two_ranks, how):
    for result in over_two_ranks(how):
        kept = set(result["names"]) - set(result["parts"])
        # What a plan of tensor parallelism does not name is replicated; FSDP cuts everything.
        assert all("norm" in name for name in kept)
        assert bool(kept) == (how == "tp_size")


@pytest.mark.skipif(VERSION < (5, 24), reason="distributed_config is new")
def test_keys_of_another_stage_are_not_unused(over_two_ranks):
    first, second = over_two_ranks("pp_size")
    assert not set(first["names"]) & set(second["names"])
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= {*first["names"], *second["names"]}
    assert "unused-keys" not in first["findings"] + second["findings"]


@pytest.mark.once
def test_the_command_gives_each_rank_a_file(tmp_path, run_python):
    small_llama.write(tmp_path / "model")
    arguments = ("-m", "hftrace.cli.main", "load", tmp_path / "model", "-q", "-o", tmp_path / "trace.json.gz")
    for rank in ("0", "1"):
        done = run_python(*arguments, env={"RANK": rank, "WORLD_SIZE": "2"})
        assert done.returncode == 0, done.stderr
    assert hftrace.Trace.open(tmp_path / "trace.json.gz").header["ranks"] == [0]
    assert hftrace.Trace.open(tmp_path / "trace.rank1.json.gz").header["ranks"] == [1]
    again = run_python(*arguments, env={"RANK": "1", "WORLD_SIZE": "2"})
    assert again.returncode == 2
    assert "trace.rank1.json.gz exists: choose another name, or --force to overwrite it" in again.stderr
    assert run_python(*arguments, "--force", env={"RANK": "1", "WORLD_SIZE": "2"}).returncode == 0
