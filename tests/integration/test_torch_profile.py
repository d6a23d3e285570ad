"""``hftrace load --torch-profile``: what torch did and what the trace says, on one clock."""

import gzip
import json
import re
import shutil

import pytest
from processes import command

import trace_processor
from hftrace.schema.trace import Trace
from hftrace.synth import plan, write

torch = pytest.importorskip("torch")


pytestmark = pytest.mark.sparse


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "tiny-llama"
    write(plan("llama-2-7b", size="5MB", max_shard_size="2MB"), path)
    return path


def by_thread(events):
    """Reads of tensors and calls of torch, by the number of their thread: ``(start, end, name)`` in µs."""
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    reads, calls = {}, {}
    for event in events:
        if event["ph"] != "X":
            continue
        name = names[event["pid"], event["tid"]]
        row = (event["ts"], event["ts"] + event["dur"], event["name"])
        if event["cat"] == "read":
            reads.setdefault(int(re.search(r"\((\d+)\)$", name)[1]), []).append(row)
        elif event["cat"] == "cpu_op":
            calls.setdefault(int(re.match(r"thread (\d+) ", name)[1]), []).append(row)
    return reads, calls


@pytest.fixture(scope="module")
def profiled(checkpoint):
    """A folder with the trace of a load, and the timeline of it and of torch's profile."""
    words = ("load", checkpoint, "--dtype", "float32", "-o", "t.json", "-q", "--torch-profile", "p.json.gz")
    place = checkpoint.parent / "profiled"
    done = command(*words, cwd=place)
    assert done.code == 0, done.stderr
    assert done.stderr.splitlines() == ["Wrote p.json.gz", "Wrote t.json"]
    return place


def test_what_torch_did_lies_in_the_reads_that_did_it(profiled):
    document = json.loads(gzip.decompress((profiled / "p.json.gz").read_bytes()))
    about = document["otherData"]["torch_profile"]
    assert about["events"] > 100
    assert about["clock_uncertainty_ns"] < 1_000_000
    reads, calls = by_thread(document["traceEvents"])
    trace = Trace.open(profiled / "t.json")
    assert trace.request["torch_profile"] is True
    assert sum(map(len, reads.values())) == sum(each.read_start_ns is not None for each in trace.tensors) > 20
    slack = about["clock_uncertainty_ns"] / 1000
    for thread, rows in reads.items():
        for start, end, name in rows:
            assert any(
                start - slack <= begin and finish <= end + slack for begin, finish, _ in calls[thread]
            ), f"torch did nothing in the read of {name}"
    assert {path.name for path in profiled.iterdir()} == {"t.json", "p.json.gz"}


def test_perfetto_reads_all_of_it(profiled):
    path = profiled / "p.json.gz"
    assert trace_processor.problems(path) == []
    (rows,) = trace_processor.answers(path, "select count(*) as n from slice where category = 'cpu_op'")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert rows == [{"n": sum(event.get("cat") == "cpu_op" and event["ph"] in "Xb" for event in events)}]


def test_a_load_that_fails_has_a_profile_all_the_same(checkpoint, run_cli, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    last = sorted(broken.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-1000])
    done = run_cli("load", broken, "-q", "-o", "t.json", "--torch-profile", "p.json")
    assert done.returncode == 1
    assert json.loads((tmp_path / "p.json").read_text())["otherData"]["status"] == "error"


def test_a_load_that_is_killed_has_none_and_says_so(checkpoint, run_cli, tmp_path):
    done = run_cli(
        "load", checkpoint, "-q", "-o", "t.json", "--torch-profile", "p.json", "--memory-limit", "60MB"
    )
    assert done.returncode == 3
    assert "p.json was not written: a load that is killed leaves nothing of torch's profile" in done.stderr
    assert not (tmp_path / "p.json").exists()
    assert (tmp_path / "t.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_memory_snapshot_without_a_gpu_is_refused(checkpoint, run_cli, tmp_path):
    done = run_cli("load", checkpoint, "-o", "t.json", "--memory-snapshot", "m.pickle")
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("hftrace: ")]
    assert said.startswith("hftrace: --memory-snapshot is the history of torch's CUDA allocator")
    assert done.stderr.endswith(f"{said}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--torch-profile", "p.txt"], "end in .json or .json.gz"),
        (["--memory-snapshot", "p.json"], "end in .pickle or .pkl"),
        (["--torch-profile", "there.json"], "there.json exists"),
        (["--torch-profile", "t.json"], "t.json is where the trace goes"),
        (["--torch-profile", "."], ". is a directory"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_the_load(checkpoint, run_cli, tmp_path, arguments, words):
    (tmp_path / "there.json").write_text("mine")
    done = run_cli("load", checkpoint, "-o", "t.json", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]
