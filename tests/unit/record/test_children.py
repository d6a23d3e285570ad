"""Processes that a recorded one starts are counted, and nothing of it stays behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings

import pytest

from hftrace.record.children import Children, program_words
from hftrace.record.recorder import Recorder
from hftrace.record.surroundings import Surroundings
from hftrace.record.tracer import Tracer
from hftrace.system.memory import HostMemory
from hftrace.system.processes import starting_helper

pytestmark = pytest.mark.once
linux = pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="there is no /proc here")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/usr/bin/uname", "-p"], ("uname", False)),
        ([], (None, False)),
        (["/opt/python3.11", "-X", "dev", "-u", "/srv/worker.py", "--token", "secret"], (None, True)),
        (["python", "-m", "vllm.entrypoints.api_server", "--api-key", "secret"], (None, True)),
        (["python", "-c", "print('secret')"], (None, True)),
        (["./serve.py", "secret"], ("serve.py", True)),
    ],
)
def test_a_program_is_named_without_its_arguments(command, expected):
    name, python = program_words(command)
    assert python is expected[1]
    assert "secret" not in (name or "")
    if expected[0] or not python:
        assert name == expected[0]
    else:
        assert name.split()[-1] in ("worker.py", "vllm.entrypoints.api_server", "-c")


@pytest.fixture
def tracer(tmp_path):
    made = Tracer(tmp_path)
    made.start()
    yield made
    made.stop()


def started(tracer):
    """Returns the children that the journal tells of, and what it says of all of them."""
    tracer.stop()
    lines = [json.loads(line) for line in tracer.recorder.writer.path.read_text().splitlines()]
    facts = [line[1:] for line in lines if isinstance(line[1], str)]
    return (
        [values for block, values in facts if block == "child"],
        next(values for block, values in facts if block == "children"),
    )


@linux
def test_programs_are_counted_with_what_they_run(tracer):
    code = vars(subprocess.Popen)["__init__"].__code__
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    subprocess.run(["true"], check=True, preexec_fn=os.getpid)
    with pytest.raises(FileNotFoundError):
        subprocess.run(["/no/such/program"], check=False)
    with starting_helper():
        subprocess.run(["true"], check=True)
    children, facts = started(tracer)
    names = [(child["how"], child["name"].split("/")[-1], child["python"]) for child in children]
    assert names[1:] == [("program", "true", False)]
    assert names[0][0] == "program"
    assert names[0][1].endswith("-c")
    assert names[0][2]
    assert facts["count"] == 2
    assert facts["alive"] == 0
    assert facts["cpu_ns"] > 0
    assert vars(subprocess.Popen)["__init__"].__code__ is not code


@linux
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_children_are_counted_once_with_their_target(tracer):
    process = multiprocessing.get_context("fork").Process(target=dict.fromkeys, args=((),))
    process.start()
    process.join(30)
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    children, facts = started(tracer)
    assert [(child["how"], child["name"], child["pid"]) for child in children] == [
        ("fork", "dict.fromkeys", process.pid),
        ("fork", None, pid),
    ]
    assert facts["count"] == 2


@linux
def test_what_other_code_starts_is_found_while_it_runs(tracer):
    pid = os.posix_spawn("/bin/sleep", ["sleep", "30"], {})
    try:
        children, facts = started(tracer)
        assert [(child["how"], child["pid"]) for child in children] == [("unknown", pid)]
        assert facts["alive"] == 1
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@linux
def test_children_of_before_are_none_of_the_sessions(tmp_path):
    with subprocess.Popen(["sleep", "30"]) as process:
        children = Children()
        late, facts = children.close()
        process.kill()
    assert late == []
    assert (facts["count"], facts["alive"]) == (0, 0)


def test_many_children_are_counted_and_not_all_written():
    children = Children()
    made = [children.add("program", None, "true", python=False) for _ in range(500)]
    assert len([child for child in made if child is not None]) == 200
    assert children.close()[1]["count"] == 500


def test_the_child_of_a_fork_touches_nothing_of_its_parents(tmp_path, monkeypatch):
    """What is open of ``/proc`` is the parent's: to read it would set the parent's marks back."""
    recorder = Recorder(tmp_path)
    recorder.start()
    held = threading.Event()
    lock = recorder._lock

    def hold():
        with lock:
            held.set()
            threading.Event().wait(30)

    threading.Thread(target=hold, daemon=True).start()
    assert held.wait(10)
    recorder.abandon()
    monkeypatch.setattr(recorder.memory, "read", lambda: pytest.fail("it read the parent's memory"))

    def child():
        recorder.end(recorder.begin("load", "Model"))

    thread = threading.Thread(target=child, daemon=True)
    with warnings.catch_warnings():
        thread.start()
        thread.join(10)
    assert not thread.is_alive(), "a lock that the child's only thread cannot get"
    assert len(recorder.writer.path.read_text().splitlines()) == 1, "more than the header"
    recorder.memory.close()


def test_packages_that_came_are_named(tmp_path, monkeypatch):
    memory = HostMemory(reset=False)
    around = Surroundings(memory)
    monkeypatch.setitem(sys.modules, "some_loader", sys)
    monkeypatch.setitem(sys.modules, "some_loader.part", sys)
    assert around.changes()["imported"] == ["some_loader"]
    memory.close()
