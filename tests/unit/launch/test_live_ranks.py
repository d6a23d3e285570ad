"""The ranks of one job find each other by their folder."""

from __future__ import annotations

import json
import time

import pytest

from hftrace.launch import live_ranks as job
from hftrace.launch.progress import JournalFollower
from hftrace.launch.run_directory import RUN_PREFIX
from hftrace.launch.tail import JournalTail
from hftrace.schema import journal, lines
from hftrace.schema.encoding import to_line

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")


@pytest.fixture
def be(monkeypatch):
    """Makes this process one rank of a job."""

    def rank(number, local=None, port="29500"):
        local = number if local is None else local
        for name, value in zip(NAMES, (number, local, 2, "host", port, "none"), strict=True):
            monkeypatch.setenv(name, str(value))

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return rank


def run_directory(folder, name):
    path = folder / f"{RUN_PREFIX}{name}"
    path.mkdir()
    return path


def begins(run, rank, phase):
    begin = lines.Begin(1, None, phase, "n", None, 1, 5, lines.Edge(), {})
    journal.journal_path(run, 10 + rank, rank).write_text(json.dumps(to_line(begin)) + "\n")


def test_a_process_of_its_own_leaves_nothing(be, tmp_path):
    job.leave_note(tmp_path)
    assert not list(tmp_path.iterdir())
    assert job.is_first()
    assert not job.in_a_job()


def test_the_first_of_a_node_draws(be):
    be(0)
    assert job.is_first()
    be(1)
    assert not job.is_first()
    be(1, local=0)
    assert job.is_first(), "of another node"


def test_the_first_sees_what_all_do(be, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "LOOK_SECONDS", 0)
    monkeypatch.setattr(job, "OTHERS_SECONDS", 0)
    first, second, other = (run_directory(tmp_path, name) for name in ("a", "b", "c"))
    be(1)
    job.leave_note(second)
    be(1, port="29501")
    job.leave_note(other)
    be(0)
    job.leave_note(first)
    follower = job.RanksFollower(JournalFollower(first, JournalTail(first)), first)
    assert [(each.rank, each.phase) for each in follower.poll().processes] == [(0, "start"), (1, "start")]
    begins(first, 0, "config")
    begins(second, 1, "import")
    begins(other, 1, "weights")
    assert [(each.rank, each.phase) for each in follower.poll().processes] == [(0, "config"), (1, "import")]
    for path in second.iterdir():
        path.unlink()
    second.rmdir()
    assert [(each.rank, each.phase) for each in follower.poll().processes] == [(0, "config"), (1, "done")]


@pytest.mark.parametrize("note", ["", "[", "[]", '{"job": 3}', '{"job": ["host"], "rank": "x"}'])
def test_a_note_that_is_none(be, tmp_path, note):
    be(0)
    (run_directory(tmp_path, "b") / job.NOTE).write_text(note)
    own = run_directory(tmp_path, "a")
    follower = job.RanksFollower(JournalFollower(own, JournalTail(own)), own)
    assert [each.rank for each in follower.poll().processes] == [0]


def test_the_others_wait_for_the_first_and_not_for_ever(be, tmp_path, monkeypatch):
    first = run_directory(tmp_path, "a")
    be(0)
    job.leave_note(first)
    be(1)
    monkeypatch.setattr(job, "LAST_SECONDS", 0.2)
    began = time.monotonic()
    job.wait_for_first(tmp_path)
    assert 0.2 <= time.monotonic() - began < 2
    (first / job.NOTE).unlink()
    began = time.monotonic()
    job.wait_for_first(tmp_path)
    assert time.monotonic() - began < 0.2
