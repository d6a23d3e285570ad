"""Ranks on one terminal: who draws, and how long the others hold back what they have to say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time

import pytest

from hftrace.launch import live_ranks
from hftrace.launch.live_ranks import NOTE, leave_note, wait_for_first
from hftrace.launch.run_directory import RUN_PREFIX


@pytest.fixture
def second(tmp_path, monkeypatch):
    """This process as the second rank of a job; returns what makes the first one's run, of some process."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    own = tmp_path / f"{RUN_PREFIX}own"
    own.mkdir()
    leave_note(own)

    def first(pid):
        run = tmp_path / f"{RUN_PREFIX}first"
        run.mkdir()
        note = json.loads((own / NOTE).read_text())
        (run / NOTE).write_text(json.dumps({**note, "rank": 0, "first": True, "pid": pid}))
        return run

    return first


def test_the_second_rank_waits_until_the_first_is_done(second, tmp_path):
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = second(alive.pid)
    waiting = threading.Thread(target=wait_for_first, args=(tmp_path,))
    try:
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive(), "the first one draws"
        shutil.rmtree(run)
        waiting.join(10)
        assert not waiting.is_alive()
    finally:
        alive.communicate(b"\n")
    assert live_ranks.LAST_SECONDS >= 30, "a busy machine takes long to make a trace"


@pytest.mark.parametrize("pid", ["dead", None, "text", -1, True])
def test_nobody_waits_for_a_first_rank_that_was_killed(second, tmp_path, pid):
    if pid == "dead":
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        pid = dead.pid
    second(pid)
    began = time.monotonic()
    wait_for_first(tmp_path)
    assert time.monotonic() - began < 5
