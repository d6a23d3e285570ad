"""``hftrace attach``: services that run, loads that hang, workers that are forked, either side killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_llama
from processes import command, environment, finish, start, wait_for

import hftrace
from hftrace.analysis.findings.registry import findings
from hub_server import Hub

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
    pytest.mark.client,
    pytest.mark.sparse,
]

SERVICE = Path(__file__).with_name("attached_service.py")
TENSORS = 21  # of small_llama: nine per layer, the embedding, the norm and the head
SECRET = "hf_" + "Q" * 34


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("attach") / "model"
    small_llama.write(path)
    return path


class Service:
    """A process that waits, in a folder of its own; its socket lies there too."""

    def __init__(self, folder, *arguments, program=SERVICE, **variables):
        self.folder = folder
        folder.mkdir()
        (folder / "run").mkdir(mode=0o700)
        env = environment({"HFTRACE": "wait", "XDG_RUNTIME_DIR": str(folder / "run"), **variables})
        self.process = subprocess.Popen(
            [sys.executable, program, *map(os.fspath, arguments)],
            cwd=folder,
            env={name: value for name, value in env.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.loads = 0
        self.attaching = []
        self.held = False
        self.said = ""
        """What the one who attached last had said by then."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.let_go()
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self):
        return self.process.pid

    @property
    def sockets(self):
        return self.folder / "run" / "hftrace"

    def wait(self, name):
        def there():
            assert self.process.poll() is None, self.process.communicate()
            return (self.folder / name).exists()

        wait_for(there, name)
        return (self.folder / name).read_text()

    def order(self, **asked):
        """Orders a load."""
        self.loads += bool(asked)
        self.held |= asked.get("held", False)
        new = self.folder / "order.new"
        new.write_text(json.dumps(asked, default=os.fspath))
        new.rename(self.folder / "order")

    def done(self):
        """Waits for the load that was ordered last, and returns what came of it."""
        return self.wait(f"done-{self.loads}")

    def unlock(self):
        """Lets the load that is held go on."""
        self.held = False
        (self.folder / "unlock").touch()

    def load(self, source):
        self.order(source=source)
        assert self.done() == str(TENSORS)

    def attach(self, *options, pid=None):
        """Starts to attach, and returns when it is."""
        attaching = start(["attach", str(pid or self.pid), *options], self.folder, environment())
        self.attaching.append(attaching)
        os.set_blocking(attaching.stderr.fileno(), False)
        said = b""

        def attached():
            nonlocal said
            said += attaching.stderr.read() or b""
            assert attaching.poll() is None, said
            # The second thing that it says, when it is attached; what it sees may come later than that.
            return b"attached to process" in said and b"under way" in said

        wait_for(attached, "being attached")
        os.set_blocking(attaching.stderr.fileno(), True)
        self.said = said.decode()
        return attaching

    def let_go(self):
        """Ends what a test that failed has left: the next one is not to wait for it."""
        while self.attaching:
            attaching = self.attaching.pop()
            attaching.kill()
            if not attaching.stdout.closed:
                attaching.communicate()
        if self.held:
            self.unlock()


def ended(attaching, folder, code=0):
    result = finish(attaching, folder)
    assert result.code == code, result.stderr
    return result


def kernel_wait(pid):
    """Returns where in the kernel the main thread of a process sleeps."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/wchan").read_text()
    return ""


@pytest.fixture(scope="module")
def hub(model, tmp_path_factory):
    repositories = tmp_path_factory.mktemp("hub")
    (repositories / "org").mkdir()
    (repositories / "org" / "slow").symlink_to(model)
    with Hub(repositories, lifetime=600) as server:
        yield server


@pytest.fixture(scope="module")
def running_service(model, hub, tmp_path_factory):
    place = tmp_path_factory.mktemp("service")
    variables = {**hub.variables, "HF_HOME": str(place / "home"), "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    with Service(place / "service", model, HF_TOKEN=SECRET, **variables) as running:
        running.wait("ready")
        yield running
        running.order()
        out, errors = running.process.communicate(timeout=60)
        # It has all of its functions back, and nothing of ours is left in its folder.
        assert (running.process.returncode, out.split()) == (0, [str(running.loads), "[]"]), errors
        assert not any(running.sockets.iterdir())
        assert not list(running.folder.glob(".hftrace-run-*"))
        for path in running.folder.rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.fixture
def service(running_service):
    yield running_service
    running_service.let_go()


def whole_load(trace):
    """Returns the only load of a trace, which has every row."""
    (load,) = trace.loads
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert len(rows) == TENSORS
    assert {row.provenance for row in rows} == {"checkpoint"}
    assert not trace.header["errors"]
    assert trace.header["command"] == "attach"
    return load


def test_a_service_is_attached_to_twice_and_goes_on(service, model):
    socket = service.sockets / f"{service.pid}.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    for name in ("1.json", "2.json"):
        attaching = service.attach("--next-load", "--json", "-o", name)
        assert "no load is under way" in service.said
        service.load(model)
        result = ended(attaching, service.folder)
        trace = hftrace.Trace.open(service.folder / name)
        assert whole_load(trace).name in ("LlamaForCausalLM", "AutoModelForCausalLM")
        assert trace.outcome["status"] == "ok"
        assert trace.header["attached"]["under_way"] == []
        assert "attached-midway" not in {finding.name for finding in findings(trace)}
        assert len(trace.samples)
        assert len(json.loads(result.stdout)["loads"]) == 1
    service.load(model)  # which nobody sees


def test_a_second_load_that_hangs_is_looked_at_and_no_row_is_of_it(service, model):
    service.order(source=model, held=True)
    wait_for(lambda: "futex" in kernel_wait(service.pid), "the lock")
    attaching = service.attach("--next-load", "--stall", "0.5", "-o", "held.json")
    time.sleep(3)  # for a look or two
    service.unlock()
    assert service.done() == str(TENSORS)  # of which nothing is recorded
    service.load(model)
    result = ended(attaching, service.folder)
    said = service.said + result.stderr
    assert "a load is under way already: PreTrainedModel.from_pretrained" in said
    assert f"called at {SERVICE}:" in said
    assert re.search(r"MainThread stands here, waiting for a lock .*\n.*in (Held\.)?__init__", said)
    assert re.search(r"MainThread has stood still for .* in (Held\.)?__init__, waiting for a lock", said)
    trace = hftrace.Trace.open(service.folder / "held.json")
    (under_way,) = trace.header["attached"]["under_way"]
    assert under_way["caller"].startswith(f"{SERVICE}:")
    assert "__init__" in under_way["stack"].splitlines()[0]
    assert trace.header["attached"]["still_under_way"] == []
    assert "attached-midway" in {finding.name for finding in findings(trace)}
    # The load that began afterwards is whole, and the only one.
    load = whole_load(trace)
    assert load.start_ns > trace.header["attached"]["time_ns"]
    loading = {"load", "step", "import", "release"}
    assert {span.phase for span in trace.spans if span.parent is None} <= loading
    shown = " ".join(result.stdout.split())
    assert "Attached in the middle of a load" in shown
    assert "returned meanwhile" in shown


def test_a_hub_that_does_not_answer_is_named(service, hub):
    hub.hang("config.json", 9, times=9)
    service.order(source="org/slow")
    wait_for(lambda: "poll" in kernel_wait(service.pid), "the request")
    attaching = service.attach("--seconds", "3", "--stall", "1", "-o", "hub.json")
    result = ended(attaching, service.folder)
    said = service.said + result.stderr
    assert "from_pretrained" in said
    assert f"a connection to 127.0.0.1:{hub.port}" in said
    trace = hftrace.Trace.open(service.folder / "hub.json")
    assert not len(trace.loads)
    (stall,) = trace.outcome["stalls"]
    assert str(SERVICE) in stall["stack"]
    assert "had not returned at the end" in " ".join(result.stdout.split())
    hub.forget()
    service.done()


def copy_with_pipe(model, second):
    """Returns a copy of a checkpoint whose second shard is a pipe, which nobody writes to."""
    second.mkdir()
    for path in model.iterdir():
        (second / path.name).write_bytes(path.read_bytes())
    shard = sorted(second.glob("*.safetensors"))[1]
    shard.unlink()
    os.mkfifo(shard)
    return second


def release(second):
    """Lets whoever waits for the pipe go on, and returns its path."""
    (shard,) = (path for path in second.iterdir() if path.is_fifo())
    os.close(os.open(shard, os.O_WRONLY))
    return shard


def test_a_process_that_cannot_answer_is_looked_at_from_outside(service, model, tmp_path):
    """safetensors opens a file with the interpreter's lock held, and a FIFO has nobody at its other end."""
    second = copy_with_pipe(model, tmp_path / "second")
    service.order(source=second)
    wait_for(lambda: "partner" in kernel_wait(service.pid), "the FIFO")
    result = command("attach", str(service.pid), "--seconds", "2", cwd=service.folder)
    left = [path.name for path in service.sockets.glob("*.stacks") if path.stat().st_size]
    shard = release(second)
    assert not service.done().isdigit()
    assert result.code == 1
    assert f"its main thread waits in openat of {shard}" in result.stderr
    assert f'File "{SERVICE}", line' in result.stderr
    assert "nothing was recorded" in result.stderr
    assert left == []
    service.load(model)


def test_a_process_that_falls_silent_is_not_said_to_be_killed(service, model, tmp_path):
    """Its load has begun since, and holds the interpreter's lock: it cannot be told to stop recording."""
    second = copy_with_pipe(model, tmp_path / "second")
    attaching = service.attach("--seconds", "3", "-o", "silent.json")
    service.order(source=second)
    result = finish(attaching, service.folder)
    release(second)
    assert not service.done().isdigit()
    assert result.code == 1
    assert "did not answer at the end of the recording, and goes on" in result.stderr
    trace = hftrace.Trace.open(service.folder / "silent.json")
    (load,) = [load for load in trace.loads if load.parent is None]
    assert (trace.outcome["status"], load.status) == ("interrupted", "interrupted")
    # It lived as long as it was looked at, without a line in its journal.
    assert load.duration_ns > 1e9
    assert trace.header["session"]["end_ns"] >= load.end_ns
    shown = " ".join(result.stdout.split())
    assert "ended the recording alone" in shown
    assert "still open" in shown
    assert "killed" not in shown
    assert "has changed" not in shown


def test_who_attached_is_killed_and_the_service_lets_go(service, model):
    attaching = service.attach("-o", "out.json")
    service.load(model)
    attaching.kill()
    attaching.communicate()
    (run,) = service.folder.glob(".hftrace-run-*")
    journal = next(run.glob("journal-*.jsonl"))
    wait_for(lambda: b'["stop"' in journal.read_bytes(), "the end of the recording")
    service.load(model)
    result = command("recover", run, "-o", "recovered.json", "--delete", cwd=service.folder)
    assert result.code == 0, result.stderr
    trace = hftrace.Trace.open(service.folder / "recovered.json")
    assert whole_load(trace).status == "ok"  # and not the second one
    assert trace.outcome["status"] == "ok"


def test_ctrl_c_ends_the_recording_and_a_second_one_is_turned_away(service, model):
    attaching = service.attach("-o", "first.json")
    second = command("attach", str(service.pid), cwd=service.folder)
    assert second.code == 1
    assert "is traced already, by another hftrace attach" in second.stderr
    service.load(model)
    attaching.send_signal(signal.SIGINT)
    ended(attaching, service.folder)
    whole_load(hftrace.Trace.open(service.folder / "first.json"))


def test_a_service_that_is_killed_while_attached_has_its_trace(model, tmp_path):
    with Service(tmp_path / "service", model) as service:
        service.wait("ready")
        attaching = service.attach("-o", "out.json")
        service.load(model)
        os.kill(service.pid, signal.SIGKILL)
        ended(attaching, service.folder, code=1)
    trace = hftrace.Trace.open(service.folder / "out.json")
    assert trace.outcome["status"] == "killed"
    assert whole_load(trace).status == "ok"


PREFORK = """
import os, signal, sys, time
from transformers import LlamaForCausalLM  # preloaded, as with gunicorn --preload

children = []
for number in range(2):
    pid = os.fork()
    if not pid:
        open(f"worker-{number}-{os.getpid()}", "w").close()
        while not os.path.exists(f"load-{os.getpid()}"):
            time.sleep(0.02)
        LlamaForCausalLM.from_pretrained(sys.argv[1])
        open(f"loaded-{os.getpid()}", "w").close()
        time.sleep(60)
        os._exit(0)
    children.append(pid)
open("ready", "w").close()
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
try:
    time.sleep(60)
finally:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.long
def test_a_forked_worker_is_attached_to_by_its_own_number(model, tmp_path):
    program = tmp_path / "prefork.py"
    program.write_text(PREFORK)
    with Service(tmp_path / "service", model, program=program) as service:
        service.wait("ready")
        wait_for(lambda: len(list(service.folder.glob("worker-*"))) == 2, "workers")
        workers = [int(path.name.rpartition("-")[2]) for path in service.folder.glob("worker-*")]
        wait_for(lambda: len(list(service.sockets.glob("*.sock"))) == 3, "sockets")
        worker = workers[1]
        attaching = service.attach("--next-load", "-o", "out.json", pid=worker)
        (service.folder / f"load-{worker}").touch()
        ended(attaching, service.folder)
        trace = hftrace.Trace.open(service.folder / "out.json")
        assert [process["pid"] for process in trace.header["processes"]] == [worker]
        whole_load(trace)
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(timeout=30)


@pytest.mark.once
def test_errors_are_one_sentence(tmp_path):
    def refused(pid, *options):
        result = command("attach", str(pid), *options, cwd=tmp_path)
        (line,) = result.stderr.splitlines()
        return result.code, line

    code, line = refused(2**22 - 1)
    assert (code, "there is no process 4194303" in line) == (2, True)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment())
    try:
        code, line = refused(other.pid)
        assert (code, f"process {other.pid} does not wait to be traced" in line) == (2, True)
        assert "HFTRACE=wait" in line
    finally:
        other.kill()
        other.communicate()
    variables = environment({"HFTRACE": str(tmp_path / "{pid}.json")})
    traced = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=variables)
    try:
        code, line = refused(traced.pid)
        assert (code, "is traced already, since its start" in line) == (2, True)
    finally:
        traced.kill()
        traced.communicate()
    if os.geteuid() == 0:
        nobody = subprocess.Popen(["sleep", "60"], user=65534)
        try:
            code, line = refused(nobody.pid)
            assert (code, f"process {nobody.pid} belongs to " in line) == (2, True)
        finally:
            nobody.kill()
            nobody.wait()
    result = command("attach", "abc", cwd=tmp_path)
    assert result.code == 2
