"""Loads that are killed, interrupted or die by themselves: the trace is there, and says how far they got."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import SLOW_MODULE, SlowLoad

from hftrace.synth import write_many

transformers = pytest.importorskip("transformers")

WEIGHT_PHASES = ("weights", "shard", "convert")
LOST_NS = 50_000_000
"""DESIGN.md section 8: at most so much of the per-tensor events is lost."""
NOISE_NS = 250_000_000
"""More than that only where the whole machine stood still."""
TENSORS = 300
KILLS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deaths")
    (folder / "modules").mkdir()
    (folder / "modules" / "slow_module.py").write_text(SLOW_MODULE)
    return folder


@pytest.fixture(scope="module")
def checkpoint(place):
    path = place / "many"
    path.mkdir()
    write_many(path, TENSORS, max_shard_size="300kB")
    return path


def check_spans(trace):
    """No span of a phase is lost: what was open when the process died is closed by its death."""
    (load,) = trace.loads
    assert load.status != "ok"
    phases = {span.phase for span in trace.spans}
    assert phases >= {"import", "config", "resolve", "instantiate", "weights"}
    by_id = {span.id: span for span in trace.spans}
    for span in trace.spans:
        assert span.end_ns >= span.start_ns
        parent = by_id.get(span.parent)
        if parent is not None and parent.thread == span.thread:
            assert parent.start_ns <= span.start_ns
            assert span.end_ns <= parent.end_ns
    assert any(span.phase == "weights" and span.status == load.status for span in trace.spans)
    return load


def last_words(load_run, trace, death_ns):
    """Checks the last tensor against the loader's own log; returns how much was lost, in ns."""
    base = trace.header["clock_base_ns"]
    log = load_run.placed()
    before = [(when, name) for when, name in log if when <= death_ns]
    assert before
    names = [name.rstrip(".") for _, name in before]
    outcome = trace.outcome
    assert outcome["last_phase"] in WEIGHT_PHASES
    # To 4.50 the loader goes by module, and the model itself has no name.
    assert outcome["last_tensor"] or "" in names[-2:]
    assert outcome["last_tensor_ns"] + base <= death_ns
    assert any(name and outcome["last_tensor"].startswith(name) for name in names) or outcome[
        "last_tensor"
    ].rstrip(".") in {name for _, name in log}
    # The latest event that the trace holds, against the latest that there was.
    known = outcome["last_tensor_ns"] + base
    missed = [when for when, _ in before if when > known + 2_000_000]
    return death_ns - missed[0] if missed else 0


@pytest.mark.sparse
def test_killed_at_any_moment_of_the_weights(place, checkpoint):
    generator = random.Random(20)
    lost = []
    for number in range(KILLS):
        run = SlowLoad(place, checkpoint, f"killed-{number}")
        child = run.child()
        run.wait_placed(generator.randrange(5, TENSORS // 3))
        time.sleep(generator.random() * 0.05)
        death_ns = time.monotonic_ns()
        os.kill(child, signal.SIGKILL)
        done, trace = run.result()
        assert done.code == 1
        (complaint,) = done.complaints
        assert "was killed by SIGKILL in phase" in complaint
        assert str(trace.outcome["last_tensor"]) in complaint
        assert "killed" in done.stdout
        outcome = trace.outcome
        assert (outcome["status"], outcome["signal"], outcome["exit_code"]) == ("killed", "SIGKILL", -9)
        load = check_spans(trace)
        assert load.status == "killed"
        lost.append(last_words(run, trace, death_ns))
        # The sampler watched to the end: the load's span lasts until the process was gone.
        base = trace.header["clock_base_ns"]
        assert abs(load.end_ns + base - death_ns) < NOISE_NS
        last_sample = max(row.time_ns for row in trace.samples if row.rss_anon_bytes is not None)
        assert abs(last_sample + base - death_ns) < NOISE_NS
        placed = {row.name for row in trace.tensors if row.placed_ns is not None}
        sure = {name for when, name in run.placed() if when < death_ns - NOISE_NS}
        by_module = any(not name or name.endswith(".") for _, name in run.placed())
        if not by_module:
            assert sure <= placed
            assert outcome["last_tensor"] in placed
    assert sorted(lost)[len(lost) // 2] <= LOST_NS, lost
    assert max(lost) <= NOISE_NS, lost


@pytest.mark.sparse
def test_killed_while_importing(place, checkpoint):
    run = SlowLoad(place, checkpoint, "killed-importing")
    child = run.child()
    time.sleep(0.5)
    os.kill(child, signal.SIGKILL)
    done, trace = run.result()
    assert done.code == 1
    assert "was killed by SIGKILL in phase import" in done.complaints[0]
    assert trace.outcome["status"] == "killed"
    assert trace.outcome["last_phase"] == "import"
    assert trace.outcome["last_tensor"] is None
    assert not trace.loads
    assert done.stdout


# The rest share the machine: none of them measures time.


def terminated(run):
    child = run.child()
    run.wait_placed(10)
    os.kill(child, signal.SIGTERM)


def control_c(run):
    run.child()
    run.wait_placed(10)
    os.killpg(run.process.pid, signal.SIGINT)


def supervisor_interrupted(run):
    run.child()
    run.wait_placed(10)
    os.kill(run.process.pid, signal.SIGINT)


def supervisor_terminated(run):
    run.child()
    run.wait_placed(10)
    os.kill(run.process.pid, signal.SIGTERM)


def supervisor_hung_up(run):
    run.child()
    run.wait_placed(10)
    os.kill(run.process.pid, signal.SIGHUP)


def hung_up(run):
    """As when a terminal goes away: everybody hears of it, and nobody reads what is printed."""
    run.child()
    run.wait_placed(10)
    os.killpg(run.process.pid, signal.SIGHUP)


def control_c_while_importing(run):
    run.child()
    time.sleep(0.5)
    os.killpg(run.process.pid, signal.SIGINT)


def by_itself(run):
    pass


ENDS = {
    "sigterm": (terminated, {}),
    "ctrl-c": (control_c, {}),
    "supervisor-sigint": (supervisor_interrupted, {}),
    "supervisor-sigterm": (supervisor_terminated, {}),
    "supervisor-sighup": (supervisor_hung_up, {}),
    "sighup": (hung_up, {}),
    "ctrl-c-importing": (control_c_while_importing, {}),
    "exit": (by_itself, {"SLOW_LAST": "20", "SLOW_END": "exit", "SLOW_DELAY": "0.005"}),
    "segv": (by_itself, {"SLOW_LAST": "20", "SLOW_END": "segv", "SLOW_DELAY": "0.005"}),
    "raise": (by_itself, {"SLOW_LAST": "20", "SLOW_END": "raise", "SLOW_DELAY": "0.005"}),
}


@pytest.fixture(scope="module")
def ends(place, checkpoint):
    def run(name):
        how, variables = ENDS[name]
        load_run = SlowLoad(place, checkpoint, name, **variables)
        try:
            how(load_run)
        except BaseException:
            load_run.process.kill()
            raise
        return (load_run, *load_run.result())

    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(run, name) for name in ENDS}
        yield lambda name: futures[name].result()


@pytest.mark.sparse
def test_terminated(ends):
    _, done, trace = ends("sigterm")
    assert done.code == 143
    assert "was killed by SIGTERM" in done.complaints[0]
    assert (trace.outcome["status"], trace.outcome["signal"]) == ("killed", "SIGTERM")
    check_spans(trace)


@pytest.mark.sparse
@pytest.mark.parametrize(
    ("name", "code", "by"),
    [
        ("ctrl-c", 130, None),
        ("supervisor-sigint", 130, None),
        ("supervisor-sigterm", 143, "SIGTERM"),
        ("supervisor-sighup", 129, "SIGHUP"),
    ],
)
def test_interrupted(ends, name, code, by):
    _, done, trace = ends(name)
    assert done.code == code
    said = f"ended by {by}" if by else "interrupted"
    assert done.complaints == [f"hftrace: {said}. The trace of what happened until then: out.json"]
    assert trace.outcome["signal"] == by
    assert trace.outcome["status"] == "interrupted"
    assert trace.outcome["exit_code"] == 130
    assert trace.outcome["error"]["type"] == "KeyboardInterrupt"
    assert trace.outcome["last_phase"] in WEIGHT_PHASES
    assert trace.outcome["last_tensor"]
    assert check_spans(trace).status == "interrupted"
    assert trace.header["errors"] == []
    assert done.stdout


@pytest.mark.sparse
def test_a_terminal_that_goes_away_takes_no_trace_with_it(ends):
    _, done, trace = ends("sighup")
    assert done.code == 129
    assert (trace.outcome["status"], trace.outcome["signal"]) == ("interrupted", "SIGHUP")
    assert trace.outcome["evidence"] == [{"kind": "signal", "signal": "SIGHUP"}]
    assert trace.outcome["last_tensor"]


@pytest.mark.sparse
def test_interrupted_while_importing(ends):
    _, done, trace = ends("ctrl-c-importing")
    assert done.code == 130
    assert trace.outcome["status"] == "interrupted"
    assert trace.outcome["last_phase"] == "import"
    assert not trace.loads


@pytest.mark.sparse
def test_a_process_that_leaves_without_a_word(ends):
    run, done, trace = ends("exit")
    assert done.code == 1
    assert "exited with 3" in done.complaints[0]
    assert (trace.outcome["status"], trace.outcome["signal"]) == ("killed", None)
    assert trace.outcome["exit_code"] == 3
    check_spans(trace)
    last_words(run, trace, time.monotonic_ns())
    assert done.stdout


@pytest.mark.sparse
def test_a_segmentation_fault(ends):
    run, done, trace = ends("segv")
    assert done.code == 1
    assert "was killed by SIGSEGV" in done.complaints[0]
    assert (trace.outcome["status"], trace.outcome["signal"]) == ("killed", "SIGSEGV")
    check_spans(trace)
    last_words(run, trace, time.monotonic_ns())
    assert done.stdout


def test_an_exception_in_the_load(ends):
    _, done, trace = ends("raise")
    assert done.code == 1
    assert "RuntimeError: told to fail [bold]here[/bold]" in done.complaints[0]
    assert "\x1b" not in done.complaints[0]
    assert "\x1b" not in done.stdout
    assert trace.outcome["status"] == "error"
    assert trace.outcome["error"]["type"] == "RuntimeError"
    assert trace.outcome["last_phase"] in WEIGHT_PHASES
    check_spans(trace)
