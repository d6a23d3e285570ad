"""Python 3.14's way in, with a stand-in for ``sys.remote_exec``: a process that runs what it is told."""

import os
import subprocess
import sys
import time

import pytest

import hftrace.launch.attaching.remote as remote
from hftrace.errors import HftraceError
from hftrace.launch.attaching.connection import Connection
from hftrace.launch.attaching.target import find_target

pytestmark = [
    pytest.mark.process,
    pytest.mark.once,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]

PROGRAM = """
import os, sys, time
path, done = list(sys.path), False
while not os.path.exists("end"):
    if os.path.exists("script") and not done:
        done = True
        exec(open(open("script").read()).read(), {"__name__": "__main__"})
    time.sleep(0.01)
print(path == sys.path, len(os.listdir("/proc/self/task")))
"""


@pytest.fixture
def process(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    env.pop("HFTRACE", None)
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as started:
        yield started
        started.kill()


def test_a_process_opens_its_socket_and_takes_it_away(process, tmp_path, monkeypatch):
    def remote_exec(pid, script):
        assert pid == process.pid
        (tmp_path / "script.new").write_text(script)
        (tmp_path / "script.new").rename(tmp_path / "script")

    monkeypatch.setattr(sys, "remote_exec", remote_exec, raising=False)
    assert remote.can_reach()
    target = find_target(process.pid)
    run = tmp_path / "recorded"
    run.mkdir()
    with remote.opened(target) as path, Connection(target, path) as connection:
        answer = connection.start(run, 60)
        assert answer is not None
        assert answer["python"] == sys.version.split()[0]
        assert connection.stop(answers=True)
    assert list(run.glob(f"journal-*-{process.pid}.jsonl"))
    until = time.monotonic() + 10
    while os.listdir(tmp_path / "run" / "hftrace") and time.monotonic() < until:
        time.sleep(0.01)
    assert os.listdir(tmp_path / "run" / "hftrace") == []
    (tmp_path / "end").touch()
    out, _ = process.communicate(timeout=30)
    assert out.split() == ["True", "1"]


def test_one_that_does_not_come_to_it_is_said(process, monkeypatch):
    monkeypatch.setattr(sys, "remote_exec", lambda pid, script: None, raising=False)
    monkeypatch.setattr(remote, "OPEN_SECONDS", 0.2)
    with pytest.raises(HftraceError, match="did not come to it"), remote.opened(find_target(process.pid)):
        pytest.fail("there is no socket")

    def refused(pid, script):
        raise PermissionError("not allowed")

    monkeypatch.setattr(sys, "remote_exec", refused, raising=False)
    with pytest.raises(HftraceError, match="cannot be reached"), remote.opened(find_target(process.pid)):
        pytest.fail("there is no socket")
