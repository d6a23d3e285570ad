"""What ``hftrace recover`` takes for a run, for a process that still lives, and for its own to delete."""

from __future__ import annotations

import json
import os
import re
import sys
import time

import pytest

from hftrace import Trace
from hftrace.errors import UsageError
from hftrace.launch.ending.explanation import explain_death
from hftrace.launch.ending.recovery import damaged_lines, delete_run, opened_run, recover, running_process
from hftrace.launch.run_directory import CHILD, SAMPLER, STALL, TIMEOUT, UNWATCHED, SupervisorLog
from hftrace.schema import journal
from hftrace.system.processes import start_ticks

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def write_journal(folder, *lines, pid=1, base=5_000, name=None):
    header = {"schema": journal.SCHEMA, "version": 1, "pid": pid, "clock_base_ns": base, "wall_clock_ns": 0}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name if name else journal.journal_path(folder, pid, 0)
    header["command"] = "trace"
    path.write_text("".join(json.dumps(line) + "\n" for line in ([journal.HEADER, header], *lines)))
    return path


def test_what_a_path_means(tmp_path):
    run = tmp_path / ".hftrace-run-abc"
    path = write_journal(run)
    for given in (tmp_path, run, path):
        with opened_run(given) as found:
            assert found == run


def test_a_journal_by_another_name(tmp_path):
    path = write_journal(tmp_path, [journal.STOP, 9_000], name="kept.txt")
    with opened_run(path) as run:
        trace = recover(run)
    assert trace.outcome["status"] == "ok"
    assert trace.header["command"] == "trace"


def test_several_runs_are_not_guessed_at(tmp_path):
    for number, name in enumerate((".hftrace-run-a", "hftrace-b", "hftrace-c")):
        path = write_journal(
            tmp_path / name, pid=os.getpid() if name == "hftrace-b" else 2**23, base=time.monotonic_ns()
        )
        os.utime(path, (1_000_000_000 + 60 * number,) * 2)
    (tmp_path / "hftrace-notes").mkdir()  # whatever else has such a name
    with pytest.raises(UsageError, match="holds 3 runs") as refused, opened_run(tmp_path):
        pass
    last, second, first = re.search(r"\((.*)\)", str(refused.value))[1].split("; ")
    assert re.fullmatch(r"hftrace-c, written to until \d\d:\d\d:40", last)
    assert second == f"hftrace-b of process {os.getpid()}, which still runs"
    assert re.fullmatch(r"\.hftrace-run-a, written to until \d\d:\d\d:40", first)


def test_what_a_block_left_in_the_temporary_directory(tmp_path):
    run = tmp_path / "hftrace-abc"
    write_journal(run)
    with opened_run(tmp_path) as found:
        assert found == run


def test_a_run_without_a_journal(tmp_path):
    SupervisorLog(tmp_path).write(CHILD, {"pid": 1})
    with pytest.raises(UsageError, match="died before it recorded anything"), opened_run(tmp_path):
        pass


def test_a_damaged_journal(tmp_path):
    write_journal(tmp_path, [journal.BEGIN, 1])
    trace = recover(tmp_path)
    assert trace.header.lost == {"events": 0, "damaged_lines": 1}
    assert damaged_lines(trace) == 1


def span(number, parent=None, start=5_010, thread=7, **attributes):
    return [
        journal.BEGIN,
        number,
        parent,
        "load",
        f"span {number}",
        None,
        thread,
        start,
        [1, 2, 3, 4],
        attributes,
    ]


def end(number, time_ns=5_020):
    return [journal.END, number, time_ns, [1, 2, 3, 4], "ok", {}]


@pytest.mark.parametrize(
    ("lines", "parents", "damaged"),
    [
        ([span(1), span(2, 1), span(3, 2), end(3), end(2), end(1)], {1: None, 2: 1, 3: 2}, 0),
        # The beginning of 2 is lost: what was in it was in 1, too.
        ([span(1), [journal.BEGIN, 2], span(3, 2), end(3), end(2), end(1)], {1: None, 3: 1}, 1),
        ([span(1), span(1), end(1)], {1: None}, 1),
        ([span(1), end(1), end(1, 5_030)], {1: None}, 1),
        ([span(1), end(1, 5_005)], {1: None}, 1),
        ([span(1, 1), end(1)], {1: None}, 1),
        ([span(1, 2), span(2, 1), end(2), end(1)], {1: None, 2: 1}, 1),
        ([span(1, 2), span(2, 9), [journal.BEGIN, 9], end(2), end(1)], {2: None, 1: 2}, 1),
    ],
    ids=[
        "whole",
        "a parent",
        "a beginning twice",
        "an end twice",
        "an end before",
        "in itself",
        "a circle",
        "around",
    ],
)
def test_lines_that_contradict_others(tmp_path, lines, parents, damaged):
    write_journal(tmp_path, *lines)
    trace = recover(tmp_path)
    assert {row.id: row.parent for row in trace.spans} == parents
    assert damaged_lines(trace) == damaged
    trace.save(tmp_path / "trace.json")
    assert len(Trace.open(tmp_path / "trace.json").spans) == len(parents)


def test_a_damaged_header(tmp_path):
    path = write_journal(tmp_path, span(1), end(1))
    text = path.read_text()
    path.write_text(text.replace("{", "[", 1))
    trace = recover(tmp_path)
    assert [row.name for row in trace.spans] == ["span 1"]
    assert damaged_lines(trace) == 1
    # When it was is not known any more.
    assert trace.header.start_time is None
    path.write_text(text + text.partition("\n")[0] + "\n")
    assert [row.name for row in recover(tmp_path).spans] == ["span 1"]


def test_times_before_the_clock_base(tmp_path):
    write_journal(tmp_path, span(1), span(2, 1, start=100), end(2), end(1))
    trace = recover(tmp_path)
    assert [(row.id, row.start_ns) for row in trace.spans] == [(1, 10)]
    assert damaged_lines(trace) == 1
    # Of a header that no line agrees with, the others are right.
    write_journal(tmp_path, span(1), span(2, 1), end(2), end(1), base=10**9)
    trace = recover(tmp_path)
    assert [(row.id, row.start_ns) for row in trace.spans] == [(1, 0), (2, 0)]
    assert damaged_lines(trace) == 1


def test_the_log_of_the_supervisor_may_be_damaged_too(tmp_path):
    write_journal(tmp_path, span(1), end(1))
    log = SupervisorLog(tmp_path)
    log.write(
        "run", {"header": "x", "request": {"model": 5, "keywords": {"a": 1}}, "limits": {"ram_bytes": -1}}
    )
    log.write(CHILD, {"pid": "x", "start_ns": 2**70})
    log.write("end", {"exit_code": 1.5})
    trace = recover(tmp_path)
    assert dict(trace.request) == {"keywords": {"a": 1}, "commit": None}
    assert damaged_lines(trace) == 3


@linux
def test_a_process_is_known_by_its_number_and_its_start(tmp_path):
    write_journal(tmp_path, pid=os.getpid(), base=time.monotonic_ns())
    assert running_process(tmp_path) == os.getpid()
    log = SupervisorLog(tmp_path)
    log.write(CHILD, {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid())})
    assert running_process(tmp_path) == os.getpid()
    log.write(CHILD, {"pid": os.getpid(), "start_ticks": 1})
    assert running_process(tmp_path) is None


@linux
def test_a_recording_that_has_ended_in_a_process_that_lives(tmp_path):
    path = write_journal(tmp_path, pid=os.getpid(), base=time.monotonic_ns())
    assert running_process(tmp_path) == os.getpid()
    stopped = tmp_path / f"{journal.STOPPED_PREFIX}0-{os.getpid()}{journal.SUFFIX}"
    stopped.write_text(" " * 100)
    assert running_process(tmp_path) == os.getpid()
    stopped.write_text('{"reason": "No space left on device"}')
    assert running_process(tmp_path) is None
    stopped.unlink()
    with open(path, "a") as handle:
        handle.write(json.dumps([journal.STOP, time.monotonic_ns()]) + "\n")
    assert running_process(tmp_path) is None


@linux
def test_a_younger_process_with_the_number_is_another_one(tmp_path):
    write_journal(tmp_path, pid=os.getpid(), base=1)
    assert running_process(tmp_path) is None


def test_what_the_supervisor_had_seen_is_in_the_trace(tmp_path):
    write_journal(tmp_path, pid=1, base=5_000)
    log = SupervisorLog(tmp_path)
    log.write(STALL, {"time_ns": 6_000, "silent_ns": 60, "phase": "shard", "stack": "Thread 1"})
    log.write(TIMEOUT, {"seconds": 9, "stack": "Thread 2"})
    outcome = recover(tmp_path).outcome
    assert outcome["stalls"] == [{"time_ns": 1_000, "silent_ns": 60, "phase": "shard", "stack": "Thread 1"}]
    assert (outcome["killer"], outcome["stack"], outcome["status"]) == ("timeout", "Thread 2", "killed")


def test_what_became_of_the_sampler_is_in_the_trace(tmp_path):
    write_journal(tmp_path)
    log = SupervisorLog(tmp_path)
    ended = {"time_ns": 5_400, "how": "killed", "signal": "SIGKILL", "replaced_by": None}
    log.write(SAMPLER, ended)
    log.write(UNWATCHED, {"limit_bytes": 100, "reason": "Too many open files"})
    trace = recover(tmp_path)
    assert trace.header["sampling"]["ended"] == [{**ended, "time_ns": 400}]
    outcome = trace.outcome
    assert (outcome["status"], outcome["killer"], outcome["signal"]) == (
        "killed",
        "limit-unwatched",
        "SIGKILL",
    )
    assert outcome["evidence"][0] == {
        "kind": "limit-unwatched",
        "limit_bytes": None,
        "reason": "Too many open files",
    }
    assert "its --memory-limit could not be watched any more" in explain_death(trace)


def test_only_what_is_ours_is_deleted(tmp_path):
    ours, shared = tmp_path / ".hftrace-run-a", tmp_path / "shared"
    write_journal(ours)
    write_journal(shared)
    (shared / "notes.txt").write_text("mine")
    delete_run(ours)
    delete_run(shared)
    assert not ours.exists()
    assert [path.name for path in shared.iterdir()] == ["notes.txt"]
