"""A limit holds, and samples go on, whatever becomes of the sampler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hftrace.launch import guard, sampling
from hftrace.launch.guard import Guard
from hftrace.launch.kept import RunDirectory
from hftrace.launch.run_directory import SupervisorLog, read_log
from hftrace.launch.sampler_limits import GRACE_NS, Deadline
from hftrace.schema.journal import samples_path

pytestmark = [
    pytest.mark.process,
    pytest.mark.once,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]
LIMIT = 60_000_000
GREEDY = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
held = bytearray(b"x") * 80_000_000
time.sleep(60)
"""


class Watched:
    """A process that takes more than it may when it is told to, and who watches it."""

    def __init__(self, run, child=None, **options):
        self.run = run
        self.go = run.path / "go"
        self.child = child or subprocess.Popen([sys.executable, "-c", GREEDY, str(self.go)])
        self.log = SupervisorLog(run.path)
        settings = {"rate_hz": 100, "limit_bytes": LIMIT, **options}
        asked = sampling.sampler_options(self.child.pid, **settings)
        try:
            self.guard = Guard(self.child.pid, run, asked, self.log, self.child.kill)
        except BaseException:
            self.child.kill()
            self.child.wait()
            raise

    @property
    def sampler(self):
        return self.guard._process.process

    def samples(self):
        path = samples_path(self.run.path, self.child.pid)
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if line[0] == "sample"]

    def wait_for_samples(self, count):
        deadline = time.monotonic() + 60
        while len(self.samples()) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def told(self):
        return read_log(self.run.path)


@pytest.fixture
def watched(tmp_path):
    made = []
    with RunDirectory(tmp_path) as run:

        def make(**options):
            made.append(Watched(run, **options))
            return made[0]

        yield make
        for each in made:
            each.child.kill()
            each.child.wait()
            each.guard.stop()


def check_replaced(watched, how):
    (ended,) = watched.told().samplers
    assert (ended["how"], ended["replaced_by"]) == (how, "supervisor")
    return ended


def test_one_that_is_killed_is_replaced(watched):
    load = watched()
    load.wait_for_samples(1)
    load.sampler.kill()
    killed_ns = time.monotonic_ns()
    load.wait_for_samples(len(load.samples()) + 20)
    assert load.samples()[-1][1] > killed_ns
    ended = check_replaced(load, "killed")
    assert ended["signal"] == "SIGKILL"
    assert ended["time_ns"] >= killed_ns
    load.go.touch()
    assert load.child.wait(60) == -signal.SIGKILL
    load.guard.stop()
    lines = samples_path(load.run.path, load.child.pid).read_text().splitlines()
    (reached,) = [json.loads(line) for line in lines if line.startswith('["limit"')]
    assert reached[2] > reached[3] == LIMIT
    assert load.told().unwatched is None


@pytest.mark.parametrize("rate_hz", [0, 100])
def test_one_that_stands_still_is_replaced_before_the_load_has_gone_far(watched, rate_hz):
    load = watched(rate_hz=rate_hz)
    time.sleep(0.3)
    os.kill(load.sampler.pid, signal.SIGSTOP)
    load.go.touch()
    assert load.child.wait(60) == -signal.SIGKILL
    load.guard.stop()
    check_replaced(load, "silent")


def test_one_that_never_began(watched, monkeypatch):
    def refuse(*_):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(guard, "SamplerProcess", refuse)
    load = watched()
    load.go.touch()
    assert load.child.wait(60) == -signal.SIGKILL
    load.guard.stop()
    assert check_replaced(load, "not-started")["reason"] == "Resource temporarily unavailable"


def test_one_whose_interpreter_does_not_work(watched, monkeypatch):
    start = subprocess.Popen
    monkeypatch.setattr(
        sampling.subprocess, "Popen", lambda words, **options: start(["false", *words[1:]], **options)
    )
    load = watched(child=start([sys.executable, "-c", "import time; time.sleep(60)"]))
    load.wait_for_samples(5)
    assert check_replaced(load, "exited")["exit_code"] == 1


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("a bug")])
def test_a_load_that_nobody_can_hold_to_its_limit_is_ended(watched, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(guard, "Sampler", refuse)
    monkeypatch.setattr(guard, "END_SECONDS", 0.1)
    load = watched()
    load.sampler.kill()
    assert load.child.wait(60) == -signal.SIGKILL
    load.guard.stop()
    facts = load.told().unwatched
    assert facts["limit_bytes"] == LIMIT
    assert str(error.args[-1]) in facts["reason"]


def test_without_a_limit_the_load_goes_on(watched, monkeypatch):
    def refuse(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(guard, "Sampler", refuse)
    monkeypatch.setattr(guard, "END_SECONDS", 0.1)
    load = watched(limit_bytes=None)
    load.sampler.kill()
    deadline = time.monotonic() + 60
    while not load.told().samplers:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (ended,) = load.told().samplers
    assert (ended["how"], ended["replaced_by"]) == ("killed", None)
    assert load.child.poll() is None
    assert load.told().unwatched is None


def test_an_end_of_the_load_is_none_of_its_sampler(watched):
    load = watched()
    load.wait_for_samples(2)
    load.child.kill()
    load.child.wait()
    load.guard.stop()
    assert load.told().samplers == []


def no_thread(_):
    raise RuntimeError("can't start new thread")


def test_no_limit_that_could_not_be_watched(watched, monkeypatch):
    def refuse(*_):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(guard, "SamplerProcess", refuse)
    monkeypatch.setattr(
        guard.threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("full"))
    )
    with pytest.raises(guard.HftraceError, match="the memory limit cannot be watched"):
        watched()


class Killer:
    def __init__(self):
        self.killed = 0

    def kill(self):
        self.killed += 1


@pytest.mark.parametrize("supervised", [True, False])
def test_the_time_is_kept_where_the_supervisor_does_not(tmp_path, supervised):
    killer = Killer()
    path = tmp_path / "supervisor.jsonl"
    path.write_bytes(b'["run", {}]\n["cut o')
    now = time.monotonic_ns()
    soon = Deadline(killer, now - 1, 1.5, str(path))
    soon.look(supervised)
    assert killer.killed == (0 if supervised else 1)
    late = Deadline(killer, now - GRACE_NS - 1, 1.5, str(path))
    late.look(supervised)
    late.look(supervised)
    assert killer.killed == (1 if supervised else 2)
    assert read_log(tmp_path).timeout == {"seconds": 1.5, "stack": None}


def test_a_time_out_does_not_end_with_the_supervisor(watched, monkeypatch):
    made = {}

    def late(*args, **options):
        asked = real(*args, **options)
        asked.deadline_ns, asked.timeout_seconds = time.monotonic_ns() + 300_000_000, 0.3
        asked.log = made["log"]
        return asked

    real = sampling.sampler_options
    monkeypatch.setattr(sampling, "sampler_options", late)
    made["log"] = os.devnull
    load = watched(rate_hz=0, limit_bytes=None)
    load.guard._process.let_go()  # as when the supervisor dies
    assert load.child.wait(60) == -signal.SIGKILL
