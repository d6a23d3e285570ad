"""What limited a load: loads that are made slow in one known way, and what the screen names first."""

from __future__ import annotations

import json
import mmap
import os
import sys
from pathlib import Path

import pytest
import torch
import transformers
import transformers.configuration_utils
from safetensors.torch import load_file, save_file

import hftrace
from hftrace import units
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.efficiency import efficiency
from hftrace.analysis.time.limit import limit, reading_cause, stages
from hftrace.analysis.time.phases import phase_times
from hftrace.analysis.time.session import session_wall_ns
from hftrace.analysis.time.split import weights_split
from hftrace.analysis.time.weights import storage_bytes, weight_bytes
from hftrace.record.child.keywords import dtype_keyword
from hftrace.render.limit import limit_words
from hftrace.render.session import took_words
from hftrace.synth import write_many
from hftrace.system.page_cache import resident

pytestmark = [
    pytest.mark.integration,
    pytest.mark.sparse,
    pytest.mark.process,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux counts by thread"),
]
PROGRAM = """
import os, pathlib, sys
import torch
import hftrace
from transformers import AutoModelForCausalLM
from hftrace.system.page_cache import evict, warm

torch.set_num_threads(1)
out, small, model, dtype, keyword, cold = sys.argv[1:]
keywords = {keyword: getattr(torch, dtype)}
AutoModelForCausalLM.from_pretrained(small, **keywords)  # imports are done
files = sorted(pathlib.Path(model).glob("*.safetensors"))
if group := os.environ.get("TEST_SLOW_GROUP"):
    (pathlib.Path(group) / "cgroup.procs").write_text(str(os.getpid()))
(evict if cold == "cold" else warm)(files)
with hftrace.trace(out):
    AutoModelForCausalLM.from_pretrained(model, **keywords)
"""
NEW_PAGES = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Every tensor gets memory of its own from the kernel, page by page."""
SAME_PAGES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}
"""Memory comes in large pieces, which the kernel fills with large pages where it can."""
SLOW_BYTES = 150_000_000
"""Of storage a second, where a test makes it slow."""
V5 = int(transformers.__version__.partition(".")[0]) >= 5


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A small one, 600 MB in float32, and the same weights in eight bits."""
    place = tmp_path_factory.mktemp("limits")
    write_many(place / "small", 12, hidden_size=32)
    write_many(place / "wide", 70, hidden_size=1536, dtype="float32", max_shard_size="200MB")
    eight = place / "eight"
    eight.mkdir()
    for path in sorted((place / "wide").iterdir()):
        if path.suffix == ".safetensors":
            tensors = {name: value.to(torch.float8_e4m3fn) for name, value in load_file(path).items()}
            save_file(tensors, eight / path.name, metadata={"format": "pt"})
        else:
            (eight / path.name).write_bytes(path.read_bytes())
    return place


@pytest.fixture
def load(tmp_path, checkpoints, run_python):
    def run(name, dtype, cold="warm", environment=None):
        script, out = tmp_path / "program.py", tmp_path / "out.json"
        script.write_text(PROGRAM)
        arguments = [str(out), str(checkpoints / "small"), str(checkpoints / name)]
        done = run_python(str(script), *arguments, dtype, dtype_keyword(), cold, env=environment or {})
        assert done.returncode == 0, done.stderr
        return hftrace.Trace.open(out)

    return run


@pytest.fixture
def slow_storage(tmp_path):
    """A control group whose processes get SLOW_BYTES a second from the disk of the test's files."""
    device = os.stat(tmp_path).st_dev
    disk = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if (disk / "partition").exists():
        disk = disk.resolve().parent
    group = Path("/sys/fs/cgroup/blkio" if Path("/sys/fs/cgroup/blkio").exists() else "/sys/fs/cgroup")
    group /= f"hftrace-test-{os.getpid()}"
    try:
        number = (disk / "dev").read_text().strip()
        group.mkdir()
        if group.parent.name == "blkio":
            (group / "blkio.throttle.read_bps_device").write_text(f"{number} {SLOW_BYTES}")
        else:
            (group / "io.max").write_text(f"{number} rbps={SLOW_BYTES}")
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"the kernel slows no disk for this user: {error}")
    yield group
    group.rmdir()


def named(trace, name):
    """Asserts that this stage is the first; on a machine that is busy, that it would have been."""
    first, split = stages(trace)[0], weights_split(trace)
    assert sum(split.parts.values()) == split.wall_ns
    assert first.share > 0.5
    assert reading_cause(trace, but=("queue",))[0] == name, limit_words(trace)
    if first.name == "processors":
        assert split.share("queue") > 0.25
        return False
    assert first.name == name
    return True


def test_imports(tmp_path, checkpoints, run_cli):
    out = tmp_path / "out.json"
    done = run_cli("load", checkpoints / "small", "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    trace = hftrace.Trace.open(out)
    assert limit(trace).name == "imports"
    assert json.loads(done.stdout)["stages"][0]["stage"] == "imports"
    # Three places say how much that is, and each means the same whole.
    spent = phase_times(trace)["import"]
    share = units.share(spent / session_wall_ns(trace))
    assert limit_words(trace).startswith(f"imports: {units.duration(spent)}, {share}")
    (said,) = [finding for finding in findings(trace) if finding.name == "imports-dominate"]
    assert said.title == f"Imports take {share} of the time"
    assert f"imports before the load {units.duration(outside_imports(trace))}," in took_words(trace)


def outside_imports(trace):
    return sum(
        span.end_ns - span.start_ns for span in trace.spans if span.phase == "import" and span.parent is None
    )


def test_page_faults(load):
    trace = load("wide", "bfloat16", environment=NEW_PAGES)
    if named(trace, "faults") and limit(trace) is not None:  # a quick machine is done before anybody asks
        assert "faults" in limit_words(trace)
    split = weights_split(trace)
    made = sum(row.bytes for row in trace.tensors if row.kind == "parameter")
    # Each page of the new weights is one fault, unless the kernel gave large ones.
    assert split.used.minor_faults * mmap.PAGESIZE >= 0.3 * made
    assert split.used.major_faults < 100


@pytest.mark.skipif(not V5, reason="4.x keeps weights of eight bits as they are")
def test_a_cast(load):
    trace = load("eight", "bfloat16", environment=SAME_PAGES)
    if named(trace, "cast"):
        assert stages(trace)[0].words == "the cast float8_e4m3fn → bfloat16"
    split = weights_split(trace)
    assert split.share("user") > split.share("kernel")


def test_slow_storage(load, checkpoints, slow_storage):
    """The kernel gives the process 150 MB/s: storage is slower than all that is done with the bytes."""
    files = sorted((checkpoints / "wide").glob("*.safetensors"))
    trace = load("wide", "bfloat16", "cold", {**SAME_PAGES, "TEST_SLOW_GROUP": str(slow_storage)})
    size = sum(os.path.getsize(path) for path in files)
    if resident(files) is None or (storage_bytes(trace) or 0) < 0.9 * size:
        pytest.skip("these files cannot be dropped from the page cache")
    assert weight_bytes(trace).read >= 0.9 * size
    assert named(trace, "storage"), limit_words(trace)
    assert "from storage" in limit_words(trace)
    assert stages(trace)[0].duration_ns == pytest.approx(size / SLOW_BYTES * 1e9, rel=0.5)


INSIDE = """
import os, runpy, sys
with open(os.path.join(os.environ["TEST_SLOW_GROUP"], "cgroup.procs"), "w") as file:
    file.write(str(os.getpid()))
sys.argv[0] = "hftrace"
runpy.run_module("hftrace", run_name="__main__")
"""


@pytest.mark.once
@pytest.mark.long
def test_storage_that_gives_what_it_can(tmp_path, checkpoints, slow_storage, run_python):
    """R05: the floor was measured where the load runs, at 150 MB/s. The page cache is no limit of that."""
    script, model = tmp_path / "inside.py", checkpoints / "wide"
    script.write_text(INSIDE)
    slow = {"TEST_SLOW_GROUP": str(slow_storage), "HFTRACE_CACHE": str(tmp_path / "cache")}

    def inside(*arguments):
        done = run_python(str(script), *arguments, env={**SAME_PAGES, **slow}, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    floor = json.loads(inside("floor", model, "--time", "2s", "--bytes", "400MB", "--json"))
    if floor["cold_bytes_per_s"] is None:
        pytest.skip("these files cannot be dropped from the page cache")
    assert floor["cold_bytes_per_s"] == pytest.approx(SLOW_BYTES, rel=0.3)
    found, reached = {}, {}
    for state in ("cold", "warm"):
        out = tmp_path / f"{state}.json"
        inside("load", model, "--dtype", "bfloat16", f"--{state}", "-o", out, "-q")
        trace = hftrace.Trace.open(out)
        found[state] = {finding.name: finding for finding in findings(trace)}
        reached[state] = efficiency(trace)
    finding = found["cold"].get("at-the-limit")
    assert finding is not None, reached
    assert (finding.rule, finding.severity) == ("R05", "info")
    assert finding.numbers["floor_bytes_per_s"] == pytest.approx(SLOW_BYTES, rel=0.3)
    assert finding.numbers["rate_bytes_per_s"] >= 0.8 * finding.numbers["floor_bytes_per_s"]
    assert "at-the-limit" not in found["warm"]
