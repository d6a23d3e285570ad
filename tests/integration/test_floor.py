"""``hftrace floor``, and loads that are held against what it measured."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import jsonschema
import pytest
import transformers.configuration_utils  # noqa: F401 (dtype_keyword looks there)

import hftrace
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.efficiency import efficiency
from hftrace.analysis.time.split import weights_split
from hftrace.analysis.time.weights import storage_bytes
from hftrace.record.child.keywords import dtype_keyword
from hftrace.synth import write_many

pytestmark = [
    pytest.mark.integration,
    pytest.mark.once,
    pytest.mark.process,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the page cache of Linux"),
]
PROGRAM = """
import ctypes, os, pathlib, sys
import torch
import hftrace
from transformers import AutoModelForCausalLM
import transformers.modeling_utils as loader
from hftrace.system.page_cache import evict

torch.set_num_threads(1)
out, model, keyword, how = sys.argv[1:]
keywords = {keyword: torch.float32}
if how == "paged":
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    original = loader.safe_open

    def open_without_readahead(path, *args, **more):
        found = original(path, *args, **more)
        for line in open("/proc/self/maps"):
            if line.rstrip().endswith(os.path.realpath(path)):
                low, high = (int(end, 16) for end in line.split()[0].split("-"))
                assert libc.madvise(low, high - low, 1) == 0  # MADV_RANDOM
        return found

    loader.safe_open = open_without_readahead
AutoModelForCausalLM.from_pretrained(model)  # imports are done, and nothing is read
evict(sorted(pathlib.Path(model).glob("*.safetensors")))
with hftrace.trace(out):
    AutoModelForCausalLM.from_pretrained(model, **keywords)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """190 MB in bfloat16."""
    path = tmp_path_factory.mktemp("floor")
    write_many(path, 330, hidden_size=512, max_shard_size="70MB")
    return path


@pytest.fixture
def cache(tmp_path):
    return {"HFTRACE_CACHE": str(tmp_path / "cache")}


@pytest.fixture
def floor(run_cli, cache, checkpoint):
    done = run_cli("floor", checkpoint, "--time", "1s", "--bytes", "100MB", "--json", env=cache)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def load(tmp_path, run_python, checkpoint, cache):
    def run(how):
        script, out = tmp_path / "program.py", tmp_path / f"{how}.json"
        script.write_text(PROGRAM)
        done = run_python(str(script), str(out), str(checkpoint), dtype_keyword(), how, env=cache)
        assert done.returncode == 0, done.stderr
        return hftrace.Trace.open(out)

    return run


def test_what_is_measured_is_kept_and_bounded(floor, cache):
    schema = Path(hftrace.__file__).parent / "schema" / "json" / "floor.schema.json"
    jsonschema.Draft202012Validator(json.loads(schema.read_text("utf-8"))).validate(floor)
    assert floor["bytes"] == 100_000_000
    assert floor["warm_bytes_per_s"] > 50_000_000
    assert floor["copy_bytes_per_s"] > floor["bytes"]
    assert floor["cast_bytes_per_s"] > 0
    assert set(floor["import_ns"]) == {"torch", "transformers", "transformers.modeling_utils"}
    assert "pinned_bytes_per_s" not in floor
    with open(floor["kept"]) as file:
        (kept,) = json.load(file).values()
    assert kept == {name: value for name, value in floor.items() if name not in ("model", "kept")}
    assert os.path.dirname(floor["kept"]) == cache["HFTRACE_CACHE"]


def test_a_trace_without_a_floor_has_no_efficiency(load):
    trace = load("ahead")
    assert "floors" not in trace.environment
    assert efficiency(trace) is None
    assert trace.environment["mount_options"]


def test_pages_that_come_one_by_one_and_pages_that_are_read_ahead(floor, load, run_cli, tmp_path):
    if floor["cold_bytes_per_s"] is None:
        pytest.skip("these files cannot be dropped from the page cache")
    slow, fine = load("paged"), load("ahead")
    reached = efficiency(slow)
    assert reached.source == "storage"
    assert reached.floor == max(floor["cold_bytes_per_s"], floor["cold_readers_bytes_per_s"])
    assert weights_split(slow).used.major_faults * 256_000 > storage_bytes(slow)
    assert weights_split(fine).used.major_faults * 256_000 < storage_bytes(fine)
    assert reached.share < 0.5
    assert efficiency(fine).share > reached.share
    found = {finding.rule: finding for finding in findings(slow)}
    assert "R04" in found, weights_split(slow)
    assert f"{weights_split(slow).used.major_faults:,} faults" in found["R04"].evidence
    assert "R04" not in {finding.rule for finding in findings(fine)}
    done = run_cli("check", tmp_path / "paged.json", "--min-efficiency", "50%")
    assert done.returncode == 3
    assert "broken" in done.stdout
    assert run_cli("check", tmp_path / "paged.json", "--min-efficiency", "0.001").returncode == 0
    shown = run_cli("show", tmp_path / "paged.json", env={"HFTRACE_CACHE": str(tmp_path / "elsewhere")})
    assert "of what this machine reads from storage" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere/at-all"], 2, "download it first"),
        (["."], 2, "holds no weight files"),
        ([".", "--time", "soon"], 2, "is not a time"),
    ],
)
def test_what_cannot_be_measured(run_cli, cache, arguments, code, words):
    done = run_cli("floor", *arguments, env=cache)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert words in done.stderr
