"""A process that waits to be traced: what it has while nobody asks, forks, and folders of other people."""

import json
import os
import stat
import sys

import pytest

from hftrace.system import attachment

pytestmark = [
    pytest.mark.process,
    pytest.mark.once,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]


def state(run_python, code, folder, value="wait"):
    folder.mkdir(mode=0o700, exist_ok=True)
    done = run_python("-c", code, env={"HFTRACE": value, "XDG_RUNTIME_DIR": str(folder)})
    assert done.returncode == 0, done.stderr
    return done


WHAT_IT_HAS = """
import json, os, sys, threading
sockets = os.path.join(os.environ["XDG_RUNTIME_DIR"], "hftrace")
print(json.dumps({
    "modules": sorted(name for name in sys.modules if name.startswith("hftrace")),
    "threads": len(threading.enumerate()), "tasks": len(os.listdir("/proc/self/task")),
    "files": sorted(os.listdir(sockets)), "pid": os.getpid(),
    "inherited": [os.get_inheritable(int(name)) for name in os.listdir("/proc/self/fd") if int(name) > 2
                  and os.path.exists(f"/proc/self/fd/{name}")],
}))
"""


@pytest.mark.parametrize("value", attachment.WAIT)
def test_it_has_a_thread_and_a_socket_and_nothing_that_records(run_python, tmp_path, value):
    folder = tmp_path / "run"
    found = json.loads(state(run_python, WHAT_IT_HAS, folder, value).stdout)
    assert found["threads"] == 1
    assert found["tasks"] == 2
    assert found["files"] == [f"{found['pid']}.sock", f"{found['pid']}.stacks"]
    assert not any(found["inherited"])
    assert not {"hftrace.record.tracer", "hftrace.record.attached", "hftrace.replay"} & set(found["modules"])
    assert list((folder / "hftrace").iterdir()) == []  # it has taken both away


def test_what_dead_processes_left_is_deleted(run_python, tmp_path):
    folder = tmp_path / "run"
    (folder / "hftrace").mkdir(parents=True, mode=0o700)
    left = folder / "hftrace" / "4194303.sock"
    other = folder / "hftrace" / "notes.txt"
    left.touch()
    other.touch()
    state(run_python, "pass", folder)
    assert not left.exists()
    assert other.exists()


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_can_enter_is_not_used(run_python, tmp_path, mode):
    folder, elsewhere = tmp_path / "run", tmp_path / "tmp"
    (folder / "hftrace").mkdir(parents=True)
    (folder / "hftrace").chmod(mode)
    elsewhere.mkdir()
    code = "import os; print(os.listdir(os.environ['TMPDIR']))"
    env = {"HFTRACE": "wait", "XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(elsewhere)}
    done = run_python("-c", code, env=env)
    assert done.stdout.strip() == str([f"hftrace-{os.geteuid()}"])
    assert stat.S_IMODE((elsewhere / f"hftrace-{os.geteuid()}").stat().st_mode) == 0o700
    (elsewhere / f"hftrace-{os.geteuid()}").rmdir()
    (elsewhere / f"hftrace-{os.geteuid()}").symlink_to(tmp_path)
    done = run_python("-c", "print('runs')", env=env)
    assert done.stdout.strip() == "runs"
    assert done.stderr.startswith("hftrace: nobody can attach: ")
    assert len(done.stderr.splitlines()) == 1


FORKS = """
import json, os, sys, time
from hftrace.record import waiting
waiting.PARKS = sys.argv[1] == "parks"
sockets = os.path.join(os.environ["XDG_RUNTIME_DIR"], "hftrace")
seen = []
def in_between():
    seen.append(len(os.listdir("/proc/self/task")))
# Such functions are called the other way round: put before that of hftrace, it is asked behind it.
os.register_at_fork(before=in_between)
waiting.begin()
reads, writes = os.pipe()
child = os.fork()
if not child:
    own = [f"{os.getpid()}.sock", f"{os.getpid()}.stacks"]
    fds = ["/proc/self/fd/" + each for each in os.listdir("/proc/self/fd")]
    links = [os.readlink(each) for each in fds if os.path.lexists(each)]
    tasks = len(os.listdir("/proc/self/task"))
    os.write(writes, json.dumps([tasks, [each in os.listdir(sockets) for each in own], links]).encode())
    sys.exit()
os.waitpid(child, 0)
until = time.monotonic() + 10
while len(os.listdir("/proc/self/task")) > 2 and time.monotonic() < until:
    time.sleep(0.001)
print(json.dumps({"pid": os.getpid(), "child": json.loads(os.read(reads, 1 << 16)), "tasks": seen,
                  "after": len(os.listdir("/proc/self/task")), "files": sorted(os.listdir(sockets))}))
"""


@pytest.mark.parametrize("how", ["parks", "stays"])
def test_a_fork_has_its_own(run_python, tmp_path, how):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    done = run_python("-c", FORKS, how, env={"XDG_RUNTIME_DIR": str(folder)})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Nobody else is there when it forks, where that would draw a warning.
    assert found["tasks"] == [1 if how == "parks" else 2]
    assert found["after"] == 2
    tasks, own, links = found["child"]
    assert tasks == 2
    assert own == [True, True]
    assert sum(link.startswith("socket:") for link in links) == 1  # that of the parent is closed
    assert not any(link.endswith(f"{found['pid']}.stacks") for link in links)
    assert found["files"] == [f"{found['pid']}.sock", f"{found['pid']}.stacks"]


DAEMON = """
import os, socket, sys
os.closerange(3, 1000)
mine = [socket.socket(socket.AF_UNIX) for _ in range(3)]  # under the numbers that hftrace had
path = os.path.join(os.environ["XDG_RUNTIME_DIR"], "mine")
mine[0].bind(path)
mine[0].listen()
other = socket.socket(socket.AF_UNIX)
other.connect(path)
accepted, _ = mine[0].accept()
other.sendall(b"hello")
print(accepted.recv(5))
if not os.fork():
    sys.exit()
os.wait()
other.sendall(b"there")
print(accepted.recv(5), [each.fileno() >= 0 and bool(os.fstat(each.fileno())) for each in mine])
"""


def test_a_daemon_that_closes_all_descriptors_keeps_its_own(run_python, tmp_path):
    folder = tmp_path / "run"
    done = state(run_python, DAEMON, folder)
    assert done.stdout.split("\n")[:2] == ["b'hello'", "b'there' [True, True, True]"]
