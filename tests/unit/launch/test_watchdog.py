"""The watchdog, the supervisor's log, and the evidence from outside: with files and clocks made by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hftrace.launch import watchdog
from hftrace.launch.ending.conclusion import exit_status
from hftrace.launch.ending.evidence import OomCounters
from hftrace.launch.progress import JournalFollower
from hftrace.launch.run_directory import CHILD, END, RUN, STALL, TIMEOUT, SupervisorLog, read_log
from hftrace.launch.tail import JournalTail
from hftrace.schema import journal
from hftrace.system.cgroups import MemoryGroup

PID = 77


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(watchdog.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def add(tmp_path):
    """Appends a line to the journal of a run."""

    def append(text):
        with open(journal.journal_path(tmp_path, PID, 0), "a") as handle:
            handle.write(text)

    return append


def test_readings_of_devices_are_no_events(tmp_path, clock, add):
    activity = watchdog.JournalActivity(JournalTail(tmp_path))
    clock.now += 5
    assert activity.silent_seconds() == 5, "silence counts from the start, before there is a journal"
    add('["header",{}]\n["device",1,{}]\n')
    assert activity.silent_seconds() == 0
    clock.now += 3
    add('["device",2,{}]\n["device",3,{}]\n["pla')
    assert activity.silent_seconds() == 3, "half a line is none yet"
    add('ces",1,[]]\n')
    assert activity.silent_seconds() == 0


@pytest.fixture
def guarded(tmp_path, clock, monkeypatch):
    said, dumps = [], iter([f"Thread {number}\n  File x" for number in range(100)])
    monkeypatch.setattr(watchdog, "dump_stacks", lambda run: next(dumps))

    def make(**more):
        options = {"timeout_seconds": None, "stall_seconds": 60.0, **more}
        tail = JournalTail(tmp_path)
        follower = JournalFollower(tmp_path, tail)
        log = SupervisorLog(tmp_path)
        made = watchdog.Watchdog(
            tmp_path, tail=tail, follower=follower, log=log, report=said.append, **options
        )
        return made, said

    return make


def event(number, phase="shard", parent=None, **attributes):
    line = ["begin", number, parent, phase, "n", None, 1, 5, [1, 2, 3, 4, None], attributes]
    return json.dumps(line) + "\n"


def ended(number, status="ok"):
    return json.dumps(["end", number, 6, [1, 2, 3, 4, None], status, {}]) + "\n"


def silent(clock, guard, seconds):
    """Lets time pass as the supervisor does, which looks every few seconds."""
    for _ in range(seconds):
        clock.now += 1
        guard.poll(pytest.fail)


def test_a_stall_is_said_once_and_again_when_it_is_twice_as_long(tmp_path, clock, add, guarded):
    guard, said = guarded()
    add(event(1))
    clock.now += 59
    guard.poll(pytest.fail)
    clock.now += 59.5
    guard.poll(pytest.fail)
    assert said == [], "the event was seen at the first poll"
    clock.now += 1
    guard.poll(pytest.fail)
    assert said == [
        "hftrace: no event for 1 min 0 s in phase shard; the stacks of all threads:",
        "Thread 0",
        "  File x",
    ]
    silent(clock, guard, 60)
    assert len(said) == 3
    silent(clock, guard, 1)
    assert said[3] == "hftrace: no event for 2 min 2 s in phase shard; the stacks of all threads:"


def test_one_silence_is_one_stall_of_its_whole_length(tmp_path, clock, add, guarded):
    guard, _ = guarded(stall_seconds=6.0)
    add(event(1))
    guard.poll(pytest.fail)
    silent(clock, guard, 38)
    add(event(2))
    silent(clock, guard, 3)
    (stall,) = read_log(tmp_path).stalls
    assert stall["silent_ns"] == 39_000_000_000, "as exact as the polls are"
    assert stall["time_ns"] == round((1000 + 39) * 1e9)
    assert stall["phase"] == "shard"
    assert (stall["stack"], stall["last_stack"]) == ("Thread 0\n  File x", "Thread 2\n  File x")
    silent(clock, guard, 8)
    guard.finish()
    first, second = read_log(tmp_path).stalls
    assert first == stall
    assert second["silent_ns"] == 10_000_000_000
    assert "last_stack" not in second


def test_the_same_stacks_are_not_repeated(clock, add, guarded, monkeypatch):
    guard, said = guarded(stall_seconds=6.0)
    monkeypatch.setattr(watchdog, "dump_stacks", lambda run: "Thread 1")
    silent(clock, guard, 13)
    assert said[2:] == ["hftrace: no event for 12.0 s in phase start; the stacks are the same"]


def test_ten_looks_are_enough(tmp_path, clock, add, guarded):
    guard, _ = guarded(stall_seconds=6.0)
    for number in range(20):
        add(event(number + 1))
        guard.poll(pytest.fail)
        silent(clock, guard, 7)
    assert guard.looks == watchdog.MAX_STALLS == len(read_log(tmp_path).stalls)
    add(event(90))
    silent(clock, guard, 1)
    assert guard.pause() is None


@pytest.mark.parametrize(
    ("lines", "hosts"),
    [
        ([event(2, "resolve", 1, request=True, host="hub:80")], ["hub:80"]),
        ([event(2, "resolve", 1, request=True, host="hub:80"), ended(2)], []),
        ([event(2, "resolve", 1, request=True, host="hub:80"), ended(2, "error")], ["hub:80"]),
        (
            [event(2, "download", 1), event(3, "download", 2, request=True, host="cdn:80"), ended(3)],
            ["cdn:80"],
        ),
        (
            [event(2, "download", 1), event(3, "download", 2, request=True, host="c"), ended(3), ended(2)],
            [],
        ),
    ],
    ids=["open", "answered", "before-the-next-attempt", "body", "downloaded"],
)
def test_a_stall_names_the_host_that_is_waited_for(tmp_path, clock, add, guarded, lines, hosts):
    guard, said = guarded(stall_seconds=6.0)
    add(event(1, "resolve") + "".join(lines))
    guard.poll(pytest.fail)
    silent(clock, guard, 7)
    (stall,) = read_log(tmp_path).stalls
    assert stall["hosts"] == hosts
    assert ("waiting for" in said[0]) == bool(hosts)


def test_a_process_that_does_not_answer(clock, guarded, monkeypatch):
    guard, said = guarded(stall_seconds=1.0)
    monkeypatch.setattr(watchdog, "dump_stacks", lambda run: None)
    clock.now += 1.26
    guard.poll(pytest.fail)
    assert said == [
        "hftrace: no event for 1.26 s in phase start; the process does not answer, so there are no stacks"
    ]


def test_a_time_out_leaves_word_before_it_kills(tmp_path, clock, guarded):
    guard, said = guarded(timeout_seconds=10.0, stall_seconds=0)
    assert guard.pause() == 10
    clock.now += 9
    guard.poll(pytest.fail)
    clock.now += 1
    killed = []
    guard.poll(lambda: killed.append(read_log(tmp_path).timeout))
    assert killed == [{"seconds": 10.0, "stack": "Thread 0\n  File x"}]
    guard.poll(pytest.fail)
    assert guard.timed_out
    assert said == []
    assert guard.pause() is None


def test_neither_asked_for(clock, guarded):
    guard, said = guarded(stall_seconds=0)
    clock.now += 1e6
    guard.poll(pytest.fail)
    assert (guard.pause(), said) == (None, [])


READY = """
import sys, time
from hftrace.record.child.stacks import enable_stack_dumps
def waiting():
    print("ready", flush=True)
    time.sleep(60)
enable_stack_dumps(sys.argv[1])
waiting()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals and /proc")
def test_stacks_are_had_from_a_process_that_is_ready_for_it(tmp_path):
    assert watchdog.dump_stacks(tmp_path) is None, "there is no process"
    child = subprocess.Popen([sys.executable, "-c", READY, tmp_path], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"ready\n"
        for _ in range(2):
            stacks = watchdog.dump_stacks(tmp_path)
            assert stacks.count("most recent call first") == 1, "the earlier dump is not in it"
            assert "in waiting" in stacks
        assert watchdog.crash_stack(tmp_path) is None, "it was asked, and did not crash"
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert watchdog.dump_stacks(tmp_path) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals and /proc")
def test_a_process_that_is_not_ready_is_left_alone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        journal.stacks_path(tmp_path, child.pid).write_text("")
        assert watchdog.dump_stacks(tmp_path) is None
        assert child.poll() is None, "SIGUSR2 would have killed it"
    finally:
        child.communicate(b"\n")
    assert child.returncode == 0


def test_secrets_do_not_pass(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "something-secret")
    text = "Thread 1\n\nFatal Python error: Bus error\n\nFile /x/something-secret/y\n"
    journal.stacks_path(tmp_path, PID).write_text(text)
    assert watchdog.crash_stack(tmp_path) == "Fatal Python error: Bus error\n\nFile /x/[removed]/y"
    # Nor do they stay in the file, which keeps its length.
    assert journal.stacks_path(tmp_path, PID).read_text() == text.replace("something-secret", 16 * "*")


def test_the_log_is_read_again(tmp_path):
    log = SupervisorLog(tmp_path)
    log.write(RUN, {"header": {"command": "load"}, "limits": None})
    log.write(CHILD, {"pid": 5})
    log.write(STALL, {"phase": "a"})
    log.write(STALL, {"phase": "b"})
    log.write(TIMEOUT, {"seconds": 3})
    with open(tmp_path / journal.SUPERVISOR_FILE, "a") as handle:
        handle.write('[1]\n["end"]\n["end", 5]\n["end", {"exit_c')
    facts = read_log(tmp_path)
    assert facts.block("header") == {"command": "load"}
    assert facts.block("limits") == facts.block("request") == {}
    assert [stall["phase"] for stall in facts.stalls] == ["a", "b"]
    assert (facts.child, facts.timeout, facts.end) == ({"pid": 5}, {"seconds": 3}, None)
    log.write(END, {"exit_code": 1})
    assert read_log(tmp_path / "nowhere").run == {}


@pytest.mark.parametrize(
    ("end", "stack", "expected"),
    [
        ({"exit_code": -9}, None, {"exit_code": -9, "signal": "SIGKILL", "status": "killed"}),
        ({"exit_code": 130, "interrupted": True}, None, {"exit_code": 130, "status": "interrupted"}),
        ({"exit_code": 0, "interrupted": False}, None, {"exit_code": 0}),
        (None, None, {}),
        (None, "Fatal Python error: Aborted\n\nThread", {"signal": "SIGABRT", "status": "killed"}),
    ],
)
def test_how_it_ended(end, stack, expected):
    assert exit_status(end, stack) == expected


def test_counters_grow(tmp_path):
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 4\n")
    group = MemoryGroup(2, tmp_path, tmp_path)
    witness = OomCounters(group)
    assert witness.delta("group_kills") == 0
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 6\n")
    assert witness.delta("group_kills") == 2
    again = OomCounters.restore(witness.group_facts(), json.loads(json.dumps(witness.before)))
    assert again.delta("group_kills") == 2
    (tmp_path / "memory.events").write_text("oom_kill 1\n")
    assert witness.delta("group_kills") is None, "it has begun anew"
    assert OomCounters.restore({}, {}).delta("group_kills") is None
