"""Loads that are stopped, hang, crash or run out of memory: the trace names the killer, with evidence.

There is no GPU here: CUDA's own exception is raised by the loader, which is how a real one arrives too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import SLOW_MODULE, Done, SlowLoad, command, environment, finish, start, wait_for

import hftrace
from hftrace.analysis.ending.death import death_of
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.memory.composition import peak_composition
from hftrace.render.evidence import evidence_sentences
from hftrace.synth import write_many
from hftrace.system.cgroups import memory_group
from hftrace.system.processes import start_ticks

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.sparse

WEIGHT_PHASES = ("weights", "shard", "convert")
TENSORS = 90
LIMIT = 550_000_000
"""Between what a process with transformers in it holds (about 280 MB), and that with 380 MB of weights."""
OLD = tuple(map(int, transformers.__version__.split(".")[:2])) < (4, 51)
CAST = ("--dtype", "float32", *(("--low-cpu-mem-usage",) if OLD else ()))
"""Copies every tensor; up to 4.50 the whole model would be allocated before the first one is read."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("postmortem")
    (folder / "modules").mkdir()
    (folder / "modules" / "slow_module.py").write_text(SLOW_MODULE)
    return folder


@pytest.fixture(scope="module")
def small(place):
    """Many small tensors: what a slow load is made of."""
    path = place / "small"
    path.mkdir()
    write_many(path, TENSORS, max_shard_size="300kB")
    return path


@pytest.fixture(scope="module")
def large(place):
    """A few hundred tensors, about 190 MB in bfloat16 and twice that in float32."""
    path = place / "large"
    path.mkdir()
    write_many(path, 330, hidden_size=512, max_shard_size="70MB")
    return path


class MemoryGroupOfTests:
    """A memory control group with a limit, where this machine lets a test make one; else a skip."""

    def __init__(self, limit_bytes):
        own = memory_group()
        if own is None:
            pytest.skip("there is no memory control group here")
        parent = own.path if own.version == 1 else own.path.parent
        self.path = parent / f"hftrace-test-{os.getpid()}"
        name = "memory.limit_in_bytes" if own.version == 1 else "memory.max"
        try:
            self.path.mkdir()
        except OSError as error:
            pytest.skip(f"no control group can be made in {parent}: {error.strerror}")
        try:
            if not (self.path / name).exists():
                pytest.skip(f"control groups in {parent} have no memory controller")
            (self.path / name).write_text(str(limit_bytes))
            with contextlib.suppress(OSError):  # without swap accounting
                swap = "memory.memsw.limit_in_bytes" if own.version == 1 else "memory.swap.max"
                (self.path / swap).write_text(str(limit_bytes if own.version == 1 else 0))
        except OSError as error:
            self.remove()
            pytest.skip(f"the control group {self.path} takes no limit: {error.strerror}")
        except BaseException:
            self.remove()
            raise

    @property
    def entrance(self):
        """What to put before a command that is to run in the group."""
        return ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.path))

    def remove(self):
        def gone():
            with contextlib.suppress(OSError):
                self.path.rmdir()
            return not self.path.exists()

        for pid in (self.path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        wait_for(gone, "an empty control group", seconds=30)


class PlainLoad:
    """``hftrace load`` of a model as it is, with its trace in a folder of its own."""

    def __init__(self, place, checkpoint, name, options=(), before=()):
        self.folder = place / name
        arguments = ["load", checkpoint, "-o", "out.json", *options]
        self.process = start(arguments, self.folder, environment(), before)

    result = SlowLoad.result


def stranger(run):
    child = run.child()
    run.wait_placed(10)
    os.kill(child, signal.SIGKILL)


def interrupted(run):
    run.child()
    run.wait_placed(10)
    os.kill(run.process.pid, signal.SIGINT)


def ends_of(place, small, large):
    """Returns, by name, how to start each load, and what to do to it."""
    cut = place / "cut"
    cut.mkdir()
    write_many(cut, TENSORS)
    (cut_file,) = cut.glob("*.safetensors")

    def slow(name, options=(), checkpoint=small, **variables):
        variables = {"SLOW_LAST": "20", "SLOW_DELAY": "0.005", **variables}
        return lambda: SlowLoad(place, checkpoint, name, options, **variables)

    def nothing(run):
        pass

    return {
        "memory-limit": (
            lambda: PlainLoad(place, large, "limit", (*CAST, "--memory-limit", "550MB")),
            nothing,
        ),
        "memory-limit-without-samples": (
            lambda: PlainLoad(
                place, large, "limit-0", (*CAST, "--memory-limit", "550MB", "--sample-hz", "0")
            ),
            nothing,
        ),
        "below-the-limit": (
            lambda: PlainLoad(place, large, "fits", (*CAST, "--memory-limit", "4GB", "--timeout", "600")),
            nothing,
        ),
        "timeout": (
            slow("timeout", ("--timeout", "15"), SLOW_END="hang", SLOW_HANG="600"),
            nothing,
        ),
        # Imports may be silent for many seconds on a busy machine, and ten stalls are all that is said.
        "stall": (slow("stall", ("--stall", "3"), SLOW_END="hang", SLOW_HANG="9"), nothing),
        "no-stall": (slow("no-stall", ("--stall", "0"), SLOW_END="hang", SLOW_HANG="3"), nothing),
        "sigbus": (slow("sigbus", checkpoint=cut, SLOW_END="bus", SLOW_FILE=str(cut_file)), nothing),
        "sigsegv": (slow("sigsegv", SLOW_END="segv"), nothing),
        "exit": (slow("exit", SLOW_END="exit"), nothing),
        "memory-error": (slow("memory-error", SLOW_END="memory"), nothing),
        "allocator": (slow("allocator", SLOW_END="allocator"), nothing),
        "cuda": (slow("cuda", SLOW_END="cuda"), nothing),
        "other-error": (slow("other-error", SLOW_END="raise"), nothing),
        "stranger": (slow("stranger", SLOW_LAST="-1", SLOW_DELAY="0.05"), stranger),
        "interrupted": (slow("interrupted", SLOW_LAST="-1", SLOW_DELAY="0.05"), interrupted),
    }


@pytest.fixture(scope="module")
def ends(place, small, large):
    how = ends_of(place, small, large)

    def run(name):
        begin, act = how[name]
        load_run = begin()
        try:
            act(load_run)
        except BaseException:
            load_run.process.kill()
            raise
        return load_run.result()

    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(run, name) for name in how}
        yield lambda name: futures[name].result()


def check(trace, killer, *, status="killed", sent=None):
    """Asserts what holds for every load that died among its weights: no span is lost, and the facts agree."""
    outcome = trace.outcome
    assert (outcome["killer"], outcome["status"], outcome["signal"]) == (killer, status, sent)
    assert outcome["evidence"]
    assert outcome["last_phase"] in WEIGHT_PHASES
    (load,) = trace.loads
    assert load.status == status
    assert {span.phase for span in trace.spans} >= {"import", "config", "resolve", "instantiate", "weights"}
    assert any(span.phase == "weights" and span.status == status for span in trace.spans)
    assert trace.environment["generation"] in "ABCD"
    assert trace.header["errors"] == []
    return outcome


def check_progress(trace):
    """Asserts how far the load had come, against the checkpoint itself."""
    outcome = trace.outcome
    stored = sum(row.stored_bytes for row in trace.tensors if row.kind != "unused")
    assert outcome["placed_bytes"] + outcome["remaining_bytes"] == stored
    assert outcome["last_tensor"]
    assert outcome["last_file"].endswith(".safetensors")


@pytest.mark.parametrize("name", ["memory-limit", "memory-limit-without-samples"])
def test_memory_limit(ends, name):
    done, trace = ends(name)
    outcome = check(trace, "memory-limit", sent="SIGKILL")
    assert done.code == 3
    (complaint,) = done.complaints
    assert complaint.startswith("hftrace: the load was stopped at --memory-limit 550 MB (anonymous memory ")
    assert f" in phase {outcome['last_phase']}" in complaint
    assert " were still to come, and finishing needs about " in complaint
    assert complaint.endswith("The trace of what happened until then: out.json")
    assert (outcome["limit_bytes"], outcome["limit_kind"]) == (LIMIT, "--memory-limit")
    assert LIMIT < outcome["anon_at_death_bytes"] <= outcome["memory_at_death_bytes"]
    assert outcome["evidence"][0]["kind"] == "limit-reached"
    assert outcome["evidence"][0]["limit_bytes"] == 550_000_000
    check_progress(trace)
    assert outcome["remaining_bytes"] > 0
    assert trace.header["sampling"]["limit"]["limit_bytes"] == LIMIT
    sampled = [row for row in trace.samples if row.rss_anon_bytes is not None]
    assert len(sampled) == 1 if name.endswith("samples") else len(sampled) > 10
    if not name.endswith("samples"):
        # With the reads that were under way; what grew before the first sample of theirs is not explained.
        assert peak_composition(trace).explained >= 0.75


def test_the_prediction_is_what_the_whole_load_needs(ends):
    _, died = ends("memory-limit")
    done, whole = ends("below-the-limit")
    assert done.code == 0, done.stderr
    assert (whole.outcome["killer"], whole.outcome["evidence"]) == (None, [])
    held = max(row.rss_anon_bytes for row in whole.samples if row.rss_anon_bytes is not None)
    assert died.outcome["predicted_anon_bytes"] == pytest.approx(held, rel=0.1)


def test_samples_say_what_surrounds_the_load(ends):
    _, trace = ends("below-the-limit")
    rows = [row for row in trace.samples if row.rss_anon_bytes is not None]
    missing = trace.header["sampling"]["missing"]
    used = [row.device_used_bytes for row in rows if row.device_used_bytes is not None]
    assert bool(used) != bool(missing.get("device_used_bytes")), missing
    for column in ("cgroup_bytes", "memory_stall_ns", "available_bytes"):
        known = [getattr(row, column) for row in rows if getattr(row, column) is not None]
        assert bool(known) != (column in missing), (column, missing)
        assert all(value >= 0 for value in known)
    assert all(row.available_bytes > 0 for row in rows if row.available_bytes is not None)


def test_timeout(ends):
    done, trace = ends("timeout")
    assert done.code == 3
    assert trace.outcome["killer"] == "timeout"
    assert trace.outcome["signal"] == "SIGKILL"
    assert trace.outcome["evidence"][0] == {"kind": "timeout", "seconds": 15}
    (complaint,) = done.complaints
    assert "the load was stopped after the 15 s of --timeout in phase " in complaint
    # On a busy machine the time is up before the load hangs.
    if trace.outcome["last_phase"] in WEIGHT_PHASES and trace.outcome["last_tensor"]:
        check(trace, "timeout", sent="SIGKILL")
        check_progress(trace)
    # What the host was doing; frames of hftrace are cut.
    assert "from_pretrained" in trace.outcome["stack"]
    assert "bootstrap.py" not in trace.outcome["stack"]


def test_a_silent_load_says_what_it_is_doing_and_goes_on(ends):
    done, trace = ends("stall")
    assert done.code == 0
    assert trace.outcome["status"] == "ok"
    assert trace.outcome["killer"] is None
    stalls = [stall for stall in trace.outcome["stalls"] if stall["phase"] in WEIGHT_PHASES]
    assert stalls, trace.outcome["stalls"]
    assert all(stall["silent_ns"] >= 3_000_000_000 for stall in stalls)
    assert all(0 < stall["time_ns"] < trace.loads[0].end_ns for stall in stalls)
    assert "stalled" in {finding.name for finding in findings(trace)}
    (hanging,) = [stall for stall in stalls if "in slow" in stall["stack"]][:1]
    assert "most recent call first" in hanging["stack"]
    heads = [line for line in done.complaints if line.startswith("hftrace: no event for ")]
    assert any(line.endswith("; the stacks of all threads:") for line in heads)
    assert hanging["stack"].splitlines()[0] in done.stderr


def test_nobody_watches_where_nobody_should(ends):
    done, trace = ends("no-stall")
    assert done.code == 0
    assert "stalls" not in trace.outcome
    assert "stalled" not in {finding.name for finding in findings(trace)}
    assert done.complaints == []


def test_a_file_that_is_cut_off_while_it_is_mapped(ends):
    done, trace = ends("sigbus")
    outcome = check(trace, "crash", sent="SIGBUS")
    assert done.code == 1
    assert "was killed by SIGBUS in phase" in done.complaints[0]
    assert re.search(r"is cut off: it has [\d,]+ bytes of [\d,]+ bytes", done.complaints[0])
    assert outcome["stack"].startswith("Fatal Python error: Bus error")
    assert "in cut_off" in outcome["stack"]
    assert any((each["kind"], each.get("problem")) == ("damaged-file", "cut") for each in outcome["evidence"])
    check_progress(trace)


def test_a_segmentation_fault_leaves_its_stack(ends):
    done, trace = ends("sigsegv")
    outcome = check(trace, "crash", sent="SIGSEGV")
    assert done.code == 1
    assert outcome["stack"].startswith("Fatal Python error: Segmentation fault")
    assert "in slow" in outcome["stack"]
    check_progress(trace)


def test_a_process_that_leaves(ends):
    _, trace = ends("exit")
    outcome = check(trace, "exit")
    assert outcome["exit_code"] == 3
    assert outcome["evidence"][0] == {"kind": "exit", "code": 3}
    check_progress(trace)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("memory-error", "MemoryError", "MemoryError"),
        ("allocator", "RuntimeError", "DefaultCPUAllocator"),
        ("cuda", "OutOfMemoryError", "CUDA out of memory"),
    ],
)
def test_an_exception_about_memory(ends, name, kind, words):
    done, trace = ends(name)
    outcome = check(trace, "out-of-memory", status="error")
    assert done.code == 1
    assert outcome["error"]["type"].rpartition(".")[2] == kind
    assert outcome["evidence"][0]["kind"] == "raised"
    assert words in "{type}: {message}".format(**outcome["evidence"][0])
    assert outcome["memory_at_death_bytes"] > outcome["anon_at_death_bytes"] > 0
    assert (outcome["limit_bytes"] is None) == (name == "cuda")
    assert "the load failed in phase" in done.complaints[0]
    check_progress(trace)


def test_another_exception_has_no_killer(ends):
    _, trace = ends("other-error")
    assert (trace.outcome["status"], trace.outcome["killer"]) == ("error", None)
    check_progress(trace)


def test_a_stranger_with_sigkill(ends):
    done, trace = ends("stranger")
    outcome = check(trace, "unknown", sent="SIGKILL")
    assert done.code == 1
    assert {"kind": "signal", "signal": "SIGKILL"} in outcome["evidence"]
    assert outcome["memory_at_death_bytes"] > outcome["anon_at_death_bytes"] > 0
    assert outcome["limit_kind"] in ("cgroup", "RAM")
    check_progress(trace)


def test_an_interrupted_load_has_no_killer(ends):
    done, trace = ends("interrupted")
    assert done.code == 130
    assert trace.outcome["status"] == "interrupted"
    assert (trace.outcome["killer"], trace.outcome["evidence"]) == (None, [])


def test_the_kernel_kills_for_want_of_memory(place, large, ends):
    ends("interrupted")  # alone on the machine: the group is small
    group = MemoryGroupOfTests(540 << 20)
    try:
        run = PlainLoad(place, large, "kernel", CAST, group.entrance)
        done, trace = run.result()
    finally:
        group.remove()
    outcome = check(trace, "kernel-oom", sent="SIGKILL")
    assert done.code == 1
    assert (outcome["limit_bytes"], outcome["limit_kind"]) == (540 << 20, "cgroup")
    told = [each for each in outcome["evidence"] if each["kind"] == "kernel-message"]
    counted = [each for each in outcome["evidence"] if each["kind"] == "oom-kills" and each["group"] == 1]
    assert told or counted
    assert told or any("likely" in each for each in evidence_sentences(death_of(trace)))
    assert "by the kernel, out of memory" in done.complaints[0]
    assert any(row.cgroup_bytes for row in trace.samples)
    check_progress(trace)


# -- recover ------------------------------------------------------------------------------------------


def orphaned(place, small, name, **variables):
    """Returns a load whose supervisor was killed, and the id of its process."""
    run = SlowLoad(place, small, name, SLOW_DELAY="0.03", **variables)
    child = run.child()
    run.wait_placed(10)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    return run, child


def ended(child):
    wait_for(lambda: start_ticks(child) is None, "the end of the load")


def recovered(folder: Path, *arguments) -> Done:
    return command("recover", ".", "-o", "again.json", *arguments, cwd=folder)


def test_recover_a_load_that_was_killed_with_its_supervisor(place, small):
    run, child = orphaned(place, small, "both")
    os.kill(child, signal.SIGKILL)
    ended(child)
    finish(run.process, run.folder)
    done = recovered(run.folder)
    assert done.code == 0, done.stderr
    trace = hftrace.Trace.open(run.folder / "again.json")
    outcome = check(trace, "unknown")
    assert outcome["evidence"][0] == {"kind": "end-not-seen"}
    assert outcome["exit_code"] is None
    check_progress(trace)
    assert trace.header["command"] == "load"
    assert trace.header["recovered"] is True
    assert str(small) in trace.header["argv"]
    assert trace.request["model"] == str(small)
    assert "killed" in done.stdout
    assert "again.json" in done.stderr
    (left,) = run.folder.glob(".hftrace-run-*")
    assert left.name in done.stderr
    again = recovered(run.folder)
    assert (again.code, len(again.complaints)) == (2, 1)
    assert "--force" in again.complaints[0]
    once_more = command("recover", left, "-o", "again.json", "--force", "--delete", "-q", cwd=run.folder)
    assert (once_more.code, once_more.stdout) == (0, "")
    assert not left.exists()
    nothing = recovered(run.folder)
    assert nothing.code == 2
    assert "there is no journal in" in nothing.complaints[0]


def test_recover_a_load_that_outlives_its_supervisor(place, small):
    run, child = orphaned(place, small, "alone", SLOW_LAST="30", SLOW_END="hang", SLOW_HANG="20")
    busy = recovered(run.folder)
    assert (busy.code, busy.stdout) == (1, "")
    assert busy.complaints == [
        f"hftrace: the load still runs (process {child}): wait for its end, or --force to make a trace of "
        "what there is"
    ]
    assert not (run.folder / "again.json").exists()
    early = recovered(run.folder, "--force", "-q")
    assert early.code == 0
    assert "the load still ran when this trace was made." in early.stderr
    assert "did not answer" not in early.stderr
    trace = hftrace.Trace.open(run.folder / "again.json")
    assert (trace.outcome["status"], trace.outcome["killer"]) == ("interrupted", None)
    ended(child)
    finish(run.process, run.folder)
    done = recovered(run.folder, "--force", "--delete")
    assert done.code == 0, done.stderr
    trace = hftrace.Trace.open(run.folder / "again.json")
    assert trace.outcome["status"] == "ok"
    (load,) = trace.loads
    assert load.status == "ok"
    # The sampler, too, went on without the supervisor.
    last = max(row.time_ns for row in trace.samples if row.rss_anon_bytes is not None)
    assert last > load.end_ns - 5_000_000_000
    assert all(row.provenance for row in trace.tensors)
    assert not list(run.folder.glob(".hftrace-run-*"))


def test_recover_says_what_is_wrong(place):
    folder = place / "wrong"
    folder.mkdir()
    (folder / "notes.jsonl").write_text("no journal\n")
    (folder / "journal-0-1.jsonl").write_text('["header", {"schema": "hftrace.journal", "version": 1')
    empty = folder / "empty"
    empty.mkdir()
    several = folder / "several"
    for name in "ab":
        (several / f".hftrace-run-{name}").mkdir(parents=True)
        (several / f".hftrace-run-{name}" / "journal-0-1.jsonl").write_text("[]\n")
    said = {}
    for name in ("nowhere", "notes.jsonl", "journal-0-1.jsonl", "empty", "several", "."):
        done = command("recover", name, cwd=folder)
        assert done.code in (1, 2)
        (said[name],) = done.complaints
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
    assert "no such file or directory: nowhere" in said["nowhere"]
    assert "notes.jsonl is no journal of hftrace" in said["notes.jsonl"]
    assert "is no journal of hftrace, or a damaged one" in said["journal-0-1.jsonl"]
    assert "there is no journal in empty" in said["empty"]
    assert "several holds 2 runs" in said["several"]
    assert "holds no journal" in said["."]
    shutil.rmtree(folder)


def test_wrong_options_are_said_before_the_load(place, small):
    for option, value, words in (
        ("--memory-limit", "much", "--memory-limit: 'much' is not a size"),
        ("--memory-limit", "0", "--memory-limit: '0' is not a size"),
        ("--timeout", "0", "--timeout"),
        ("--stall", "-1", "--stall"),
    ):
        done = command("load", small, option, value, cwd=place / "options")
        assert done.code == 2
        assert words in done.stderr
        assert not list((place / "options").iterdir())
