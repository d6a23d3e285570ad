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
from pathlib import Path

import pytest
import small_llama
from processes import command, environment, finish, start, wait_for

import hftrace
from hub_server import Hub

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

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
        self.env = environment({"HFTRACE": "wait", "XDG_RUNTIME_DIR": str(folder / "run"), **variables})
        self.process = subprocess.Popen(
            [sys.executable, program, *map(os.fspath, arguments)],
            cwd=folder,
            env={name: value for name, value in self.env.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    @property
    def pid(self):
        return self.process.pid

    def order(self, name):
        (self.folder / name).touch()

    def wait(self, name):
        def there():
            assert self.process.poll() is None, self.process.communicate()
            return (self.folder / name).exists()

        wait_for(there, name)

    def attach(self, *options, pid=None):
        """Starts to attach, and returns when it is."""
        attaching = start(["attach", str(pid or self.pid), *options], self.folder, environment())
        os.set_blocking(attaching.stderr.fileno(), False)
        said = b""

        def attached():
            nonlocal said
            said += attaching.stderr.read() or b""
            assert attaching.poll() is None, said
            return b"attached to process" in said

        wait_for(attached, "being attached")
        os.set_blocking(attaching.stderr.fileno(), True)
        self.said = said.decode()
        return attaching

    def end(self):
        """Lets it come to its end; returns what it printed."""
        self.order("end")
        out, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return out


def done(attaching, folder):
    result = finish(attaching, folder)
    assert result.code == 0, result.stderr
    return result


def trace_of(folder, name="out.json"):
    return hftrace.Trace.open(folder / name)


def load_spans(trace):
    return [span for span in trace.spans if span.phase == "load"]


def test_a_service_is_attached_to_twice_and_goes_on(model, tmp_path):
    with Service(tmp_path / "service", model, model, "free", HF_TOKEN=SECRET) as service:
        service.wait("ready")
        socket = service.folder / "run" / "hftrace" / f"{service.pid}.sock"
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        for number in (1, 2):
            attaching = service.attach("--next-load", "-o", f"{number}.json")
            assert "no load is under way" in service.said
            service.order("load")
            done(attaching, service.folder)
            service.wait(f"loaded-{number}")
        service.order("load")
        service.wait("loaded-3")  # which nobody saw
        printed = service.end()
    for number in (1, 2):
        trace = trace_of(service.folder, f"{number}.json")
        (load,) = load_spans(trace)
        assert load.name == "LlamaForCausalLM" or load.name.startswith("AutoModel")
        assert load.attributes["caller"].startswith(str(SERVICE))
        rows = [row for row in trace.tensors if row.kind == "parameter"]
        assert len(rows) == TENSORS
        assert {row.provenance for row in rows} == {"checkpoint"}
        assert trace.outcome["status"] == "ok"
        assert trace.header["command"] == "attach"
        assert trace.header["attached"]["under_way"] == []
        assert not trace.header["errors"]
        assert len(trace.samples)
    # It has all of its functions back, and nothing of ours is left in its folder.
    assert printed.split() == [str(TENSORS), "True"]
    assert not any((service.folder / "run" / "hftrace").iterdir())
    assert not list(service.folder.glob(".hftrace-run-*"))
    for path in service.folder.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_a_second_load_that_hangs_is_looked_at_and_no_row_is_of_it(model, tmp_path):
    with Service(tmp_path / "service", model, model, "lock") as service:
        service.wait("ready")
        service.order("load")
        wait_for(lambda: b"futex" in _kernel_wait(service.pid), "the lock")
        attaching = service.attach("--next-load", "--stall", "0.5", "-o", "out.json")
        wait_for(lambda: _has_stalled(service), "a look or two", pause=0.1)
        service.order("unlock")
        service.wait("loaded-1")  # of which nothing is recorded
        service.order("load")
        result = done(attaching, service.folder)
        service.wait("loaded-2")
        assert service.end().split() == [str(TENSORS), "True"]
    said = service.said + result.stderr
    assert "a load is under way already: PreTrainedModel.from_pretrained" in said
    assert f"called at {SERVICE}:" in said
    assert re.search(r"MainThread stands here, waiting for a lock .*\n.*in Held\.__init__", said)
    assert re.search(r"MainThread has stood still for .* in Held\.__init__, waiting for a lock", said)
    trace = trace_of(service.folder)
    (under_way,) = trace.header["attached"]["under_way"]
    assert under_way["caller"].startswith(f"{SERVICE}:")
    assert "Held.__init__" in under_way["stack"].splitlines()[0]
    assert trace.header["attached"]["still_under_way"] == []
    # The load that began afterwards is whole, and the only one.
    (load,) = load_spans(trace)
    assert load.name == "Held"
    assert load.start_ns > trace.header["attached"]["time_ns"]
    assert {span.parent is None for span in trace.spans if span.phase == "instantiate"} == {False}
    rows = [row for row in trace.tensors if row.kind == "parameter"]
    assert len(rows) == TENSORS
    assert {row.provenance for row in rows} == {"checkpoint"}
    assert not trace.header["errors"]
    shown = command("show", "out.json", cwd=service.folder).stdout
    assert "Attached in the middle of a load" in shown
    assert "returned meanwhile" in " ".join(shown.split())


def _kernel_wait(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/wchan").read_bytes()
    return b""


def _has_stalled(service):
    run = next(service.folder.glob(".hftrace-run-*"), None)
    # Looks leave nothing there: a second more than the time that is worth a word.
    return run is not None and _age_seconds(run) > 3


def _age_seconds(path):
    import time

    return time.time() - path.stat().st_mtime


def test_a_hub_that_does_not_answer_is_named(model, tmp_path):
    repositories = tmp_path / "repositories"
    (repositories / "org").mkdir(parents=True)
    (repositories / "org" / "slow").symlink_to(model)
    with Hub(repositories, lifetime=120) as hub:
        hub.hang("config.json", 12, times=9)
        variables = {**hub.variables, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
        with Service(tmp_path / "service", model, "org/slow", "free", **variables) as service:
            service.wait("ready")
            service.order("load")
            wait_for(lambda: hub.log or _connected(service.pid, hub.port), "the request")
            attaching = service.attach("--seconds", "3", "--stall", "1", "-o", "out.json")
            result = done(attaching, service.folder)
    said = service.said + result.stderr
    assert "from_pretrained" in said
    assert f"a connection to 127.0.0.1:{hub.port}" in said
    trace = trace_of(service.folder)
    assert not len(trace.loads)
    (stall,) = trace.outcome["stalls"]
    assert str(SERVICE) in stall["stack"]
    assert "had not returned at the end" in " ".join(result.stdout.split())


def _connected(pid, port):
    hexadecimal = f"0100007F:{port:04X} 01"
    return hexadecimal in Path(f"/proc/{pid}/net/tcp").read_text() and b"poll" in _kernel_wait(pid)


def test_a_process_that_cannot_answer_is_looked_at_from_outside(model, tmp_path):
    """safetensors opens a file with the interpreter's lock held, and a FIFO has nobody at its other end."""
    second = tmp_path / "second"
    second.mkdir()
    for path in model.iterdir():
        (second / path.name).write_bytes(path.read_bytes())
    shard = sorted(second.glob("*.safetensors"))[1]
    shard.unlink()
    os.mkfifo(shard)
    with Service(tmp_path / "service", model, second, "free") as service:
        service.wait("ready")
        service.order("load")
        wait_for(lambda: b"wait_for_partner" in _kernel_wait(service.pid), "the FIFO")
        result = command("attach", str(service.pid), "--seconds", "2", cwd=service.folder)
        left = [path.name for path in service.folder.glob("**/*.stacks") if path.stat().st_size]
    if "attached to process" in result.stderr:
        pytest.skip("this safetensors opens files without the lock")
    assert result.code == 1
    assert f"its main thread waits in openat of {shard}" in result.stderr
    assert f'File "{SERVICE}", line' in result.stderr
    assert "nothing was recorded" in result.stderr
    assert not (service.folder / "traces").exists() or not list((service.folder / "traces").iterdir())
    assert left == []


@pytest.mark.sparse
def test_who_attached_is_killed_and_the_service_lets_go(model, tmp_path):
    with Service(tmp_path / "service", model, model, "free") as service:
        service.wait("ready")
        attaching = service.attach("-o", "out.json")
        service.order("load")
        service.wait("loaded-1")
        attaching.kill()
        attaching.communicate()
        (run,) = service.folder.glob(".hftrace-run-*")
        journal = next(run.glob("journal-*.jsonl"))
        wait_for(lambda: b'["stop"' in journal.read_bytes(), "the end of the recording")
        service.order("load")
        service.wait("loaded-2")
        result = command("recover", run, "-o", "recovered.json", cwd=service.folder)
        assert result.code == 0, result.stderr
        again = service.attach("--seconds", "0.1", "-o", "again.json")
        done(again, service.folder)
        assert service.end().split() == [str(TENSORS), "True"]
    trace = trace_of(service.folder, "recovered.json")
    (load,) = load_spans(trace)  # and not the second one
    assert load.status == "ok"
    assert trace.outcome["status"] == "ok"
    assert trace.header["command"] == "attach"


@pytest.mark.sparse
def test_a_service_that_is_killed_while_attached_has_its_trace(model, tmp_path):
    with Service(tmp_path / "service", model, model, "free") as service:
        service.wait("ready")
        attaching = service.attach("-o", "out.json")
        service.order("load")
        service.wait("loaded-1")
        os.kill(service.pid, signal.SIGKILL)
        result = finish(attaching, service.folder)
    assert result.code == 1, result.stderr
    trace = trace_of(service.folder)
    assert trace.outcome["status"] == "killed"
    (load,) = load_spans(trace)
    assert load.status == "ok"
    assert len([row for row in trace.tensors if row.kind == "parameter"]) == TENSORS


@pytest.mark.sparse
def test_ctrl_c_ends_the_recording_and_an_exit_of_the_service_too(model, tmp_path):
    with Service(tmp_path / "service", model, model, "free") as service:
        service.wait("ready")
        attaching = service.attach("-o", "out.json")
        service.order("load")
        service.wait("loaded-1")
        # A second one is turned away, and does not disturb.
        second = command("attach", str(service.pid), cwd=service.folder)
        assert second.code == 1
        assert "is traced already, by another hftrace attach" in second.stderr
        attaching.send_signal(signal.SIGINT)
        done(attaching, service.folder)
        assert len(trace_of(service.folder).loads) == 1
        attaching = service.attach("-o", "last.json")
        assert service.end().split() == [str(TENSORS), "True"]
        done(attaching, service.folder)
    assert trace_of(service.folder, "last.json").outcome["status"] == "ok"


PREFORK = """
import os, signal, sys, time
from transformers import AutoModelForCausalLM  # preloaded, as with gunicorn --preload

children = []
for number in range(2):
    pid = os.fork()
    if not pid:
        open(f"worker-{number}-{os.getpid()}", "w").close()
        while not os.path.exists(f"load-{os.getpid()}"):
            time.sleep(0.02)
        AutoModelForCausalLM.from_pretrained(sys.argv[1])
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


@pytest.mark.sparse
def test_a_forked_worker_is_attached_to_by_its_own_number(model, tmp_path):
    program = tmp_path / "prefork.py"
    program.write_text(PREFORK)
    with Service(tmp_path / "service", model, program=program) as service:
        service.wait("ready")
        wait_for(lambda: len(list(service.folder.glob("worker-*"))) == 2, "workers")
        workers = [int(path.name.rpartition("-")[2]) for path in service.folder.glob("worker-*")]
        sockets = service.folder / "run" / "hftrace"
        wait_for(lambda: len(list(sockets.glob("*.sock"))) == 3, "sockets")
        for worker in workers:
            attaching = service.attach("--next-load", "-o", f"{worker}.json", pid=worker)
            service.order(f"load-{worker}")
            done(attaching, service.folder)
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(timeout=30)
    for worker in workers:
        trace = trace_of(service.folder, f"{worker}.json")
        assert [process["pid"] for process in trace.header["processes"]] == [worker]
        assert len(trace.loads) == 1


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
        nobody = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, user=65534)
        try:
            code, line = refused(nobody.pid)
            assert (code, f"process {nobody.pid} belongs to " in line) == (2, True)
        finally:
            nobody.kill()
            nobody.communicate()
    result = command("attach", "abc", cwd=tmp_path)
    assert result.code == 2


@pytest.mark.once
def test_json_is_one_object(model, tmp_path):
    with Service(tmp_path / "service", model, model, "free") as service:
        service.wait("ready")
        attaching = service.attach("--next-load", "--json", "-o", "out.json")
        service.order("load")
        result = done(attaching, service.folder)
    assert len(json.loads(result.stdout)["loads"]) == 1
