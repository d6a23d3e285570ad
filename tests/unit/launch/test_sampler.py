"""The sampler: what it reads from the kernel's files, NVML, limits, and how its lines are read again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from hftrace.launch import sampler, sampler_nvml, sampling
from hftrace.replay.trace import replay
from hftrace.schema import journal

STATUS = b"""Name:	py) (x
VmHWM:	  9 kB
RssAnon:	     100 kB
RssFile:	  20 kB
RssShmem:	  3 kB
VmSwap:	 4 kB
"""
PRESSURE = (
    b"some avg10=0.00 avg60=0.00 avg300=0.00 total=1874\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
)
SLEEP = "import time; time.sleep(60)"
NVML = """
class Memory:
    def __init__(self, used):
        self.used = used

def nvmlInit():
    {init}

def nvmlDeviceGetCount():
    return 3

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetHandleByUUID(uuid):
    return {{"GPU-two": 2}}[uuid]

def nvmlDeviceGetMemoryInfo(handle):
    return Memory(1000 + handle)
"""


def test_status():
    assert sampler.status_bytes(STATUS) == [102400, 20480, 3072, 4096]
    assert sampler.status_bytes(b"Name:\tzombie\n") == [None] * 4
    assert sampler.status_bytes(b"RssAnon:\t 1 kB\n") == [1024, None, None, None]


def test_pressure():
    assert sampler.stall_ns(PRESSURE) == 1_874_000
    assert sampler.stall_ns(b"full avg10=0.00 total=7\n") is None
    assert sampler.stall_ns(b"") is None


def test_available():
    assert sampler.available_bytes(b"MemTotal: 9 kB\nMemAvailable:   22 kB\nBuffers: 1 kB\n") == 22528
    assert sampler.available_bytes(b"MemTotal: 9 kB\n") is None


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", SLEEP])
    yield process
    process.kill()
    process.wait()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_reader(sleeper, tmp_path):
    (tmp_path / "current").write_text("4711\n")
    (tmp_path / "pressure").write_bytes(PRESSURE)
    options = sampler.Options(
        1.0,
        cgroup_file=str(tmp_path / "current"),
        pressure_file=str(tmp_path / "pressure"),
        io_pressure_file=str(tmp_path / "pressure"),
    )
    reader = sampler.ProcReader(sleeper.pid, options)
    values = reader.read()
    assert len(values) == 9
    assert values[6:8] == [4711, 1_874_000]
    system, minor, major, stall, called = reader.more
    with open(f"/proc/{sleeper.pid}/io") as file:
        counted = dict(line.split(": ") for line in file.read().splitlines())
    assert 0 < called <= int(counted["rchar"])  # it is still starting
    assert 0 <= system <= values[5]
    assert minor > 0 <= major
    assert stall == 1_874_000
    assert "cgroup_bytes" not in reader.missing
    assert reader.anonymous() > 0
    sleeper.kill()
    sleeper.wait()
    assert reader.read() is None
    assert reader.anonymous() is None
    with pytest.raises(OSError, match="No such"):
        sampler.ProcReader(sleeper.pid, options)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_reader_says_what_is_missing(sleeper, tmp_path):
    reader = sampler.ProcReader(sleeper.pid, sampler.Options(1.0, cgroup_file=str(tmp_path / "none")))
    assert reader.missing["cgroup_bytes"] == f"{tmp_path / 'none'}: No such file or directory"
    assert reader.missing["memory_stall_ns"] == "there is no such counter here"
    assert reader.read()[6:8] == [None, None]


@pytest.fixture
def nvml(tmp_path, monkeypatch):
    """Writes a stand-in for pynvml; ``nvml(init)`` returns its directory."""

    def make(init="pass"):
        (tmp_path / "pynvml.py").write_text(NVML.format(init=init))
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)
        return tmp_path

    yield make
    sys.modules.pop("pynvml", None)


@pytest.mark.parametrize(
    ("visible", "used"),
    [
        (None, {"cuda:0": 1000, "cuda:1": 1001, "cuda:2": 1002}),
        ("2,0", {"cuda:0": 1002, "cuda:1": 1000}),
        ("GPU-two", {"cuda:0": 1002}),
        ("1,-1,0", {"cuda:0": 1001}),
        ("7", None),
        ("", None),
    ],
)
def test_devices(nvml, visible, used):
    assert sampler_nvml.DeviceReader(str(nvml()), visible).read() == used


DEVICES = 11
"""Where a line has what NVML says."""


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_line(path, wanted):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [line for line in lines_of(path) if wanted(line)]
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"no such line in {path}")


def test_samples_hold_what_nvml_says(nvml, sleeper, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(nvml())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    process = sampling.SamplerProcess(sleeper.pid, tmp_path, sampling.sampler_options(sleeper.pid, 100))
    path = journal.samples_path(tmp_path, sleeper.pid)
    line = wait_for_line(path, lambda line: line[0] == journal.SAMPLE and line[DEVICES])
    process.stop()
    assert line[DEVICES] == {"cuda:0": 1001}


def test_nvml_that_does_not_begin_is_named_with_its_reason(nvml, sleeper, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(nvml("raise RuntimeError('Driver Not Loaded')"))
    process = sampling.SamplerProcess(sleeper.pid, tmp_path, sampling.sampler_options(sleeper.pid, 100))
    path = journal.samples_path(tmp_path, sleeper.pid)
    line = wait_for_line(
        path, lambda line: line[0] == journal.HEADER and "device_used_bytes" in line[1]["missing"]
    )
    process.stop()
    assert line[1]["missing"] == {"device_used_bytes": "NVML: RuntimeError: Driver Not Loaded"}


@contextlib.contextmanager
def copied(sleeper, tmp_path, nvml_directory, *parts):
    """Runs a copy of the sampler with some of its parts, and gives the file that it writes."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    for name in ("sampler.py", *parts):
        shutil.copy(sampling.SAMPLER.with_name(name), place)
    path = tmp_path / "samples"
    options = {"rate_hz": 100, "nvml_directory": os.fspath(nvml_directory)}
    words = [sys.executable, "-I", "-S", "sampler.py", str(sleeper.pid), str(path), json.dumps(options)]
    process = subprocess.Popen(words, cwd=place, stdin=subprocess.PIPE)
    yield path
    process.communicate(b"q", timeout=60)
    assert process.returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_it_is_a_script_that_runs_wherever_its_files_are(nvml, sleeper, tmp_path):
    with copied(sleeper, tmp_path, nvml(), "sampler_nvml.py") as path:
        line = wait_for_line(path, lambda line: line[0] == journal.SAMPLE and line[DEVICES])
        assert line[DEVICES] == {"cuda:0": 1000, "cuda:1": 1001, "cuda:2": 1002}
        assert line[2] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_without_its_parts_it_says_what_is_missing(sleeper, tmp_path):
    with copied(sleeper, tmp_path, tmp_path) as path:
        assert wait_for_line(path, lambda line: line[0] == journal.SAMPLE)[2] > 0
        missing = lines_of(path)[0][1]["missing"]
        assert missing["device_used_bytes"] == "NVML: No module named 'sampler_nvml'"


def test_without_nvml(monkeypatch):
    monkeypatch.setattr(sampling.importlib.util, "find_spec", lambda name: None)
    assert sampling.nvml_directory() == (None, "pynvml is not installed: pip install 'hftrace[nvml]'")


def test_a_limit_kills_at_once_and_leaves_word(tmp_path):
    greedy = "import time\nheld = bytearray(b'x') * 60_000_000\ntime.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", greedy])
    process = sampling.SamplerProcess(child.pid, tmp_path, sampling.sampler_options(child.pid, 0, 40_000_000))
    assert child.wait(60) == -9
    process.stop()
    kinds = lines_of(journal.samples_path(tmp_path, child.pid))
    assert [line[0] for line in kinds] == [journal.HEADER, journal.LIMIT, journal.SAMPLE]
    assert kinds[1][2] > kinds[1][3] == 40_000_000


def test_it_outlives_its_supervisor_and_not_the_load(sleeper, tmp_path):
    process = sampling.SamplerProcess(sleeper.pid, tmp_path, sampling.sampler_options(sleeper.pid, 100))
    path = journal.samples_path(tmp_path, sleeper.pid)
    wait_for_line(path, lambda line: line[0] == journal.SAMPLE)
    process.let_go()
    count = len(lines_of(path))
    wait_for_line(path, lambda line: len(lines_of(path)) > count + 10)
    assert process.process.poll() is None
    sleeper.kill()
    sleeper.wait()
    assert process.process.wait(60) == 0
    process.stop()


# -- reading its lines again --------------------------------------------------------------------------

BASE, PID = 1_000_000_000, 77


@pytest.fixture
def read_again(tmp_path):
    def read(*lines):
        header = {
            "schema": journal.SCHEMA,
            "version": 1,
            "pid": PID,
            "clock_base_ns": BASE,
            "wall_clock_ns": 0,
        }
        journal.journal_path(tmp_path, PID, 0).write_text(json.dumps([journal.HEADER, header]) + "\n")
        journal.samples_path(tmp_path, PID).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return replay(tmp_path)

    return read


def test_old_and_new_lines_are_read(read_again):
    trace = read_again(
        [journal.HEADER, {"pid": PID, "rate_hz": 10, "source": "proc", "missing": {"a": "b"}}],
        [journal.SAMPLE, BASE + 1, 1, 2, 3, 4, 5, 6],
        [journal.SAMPLE, BASE + 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, {"cuda:0": 10}],
        [journal.SAMPLE, BASE + 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, None, 1, 2, 3, 4, 5, "from the future"],
        [journal.HEADER, {"pid": PID, "rate_hz": 10, "source": "proc", "missing": {"c": "d"}}],
        [journal.LIMIT, BASE + 4, 11, 10],
    )
    old, new, newer = trace.samples
    assert (old.cgroup_bytes, old.memory_stall_ns, old.available_bytes, old.device_used_bytes) == (None,) * 4
    assert (new.cgroup_bytes, new.memory_stall_ns, new.available_bytes) == (7, 8, 9)
    assert (new.time_ns, new.cpu_ns, new.device_used_bytes, new.pid) == (2, 6, {"cuda:0": 10}, PID)
    assert newer.available_bytes == 9
    assert (newer.cpu_system_ns, newer.minor_faults, newer.major_faults, newer.io_stall_ns) == (1, 2, 3, 4)
    assert (new.read_call_bytes, newer.read_call_bytes) == (None, 5)
    assert (new.cpu_system_ns, new.minor_faults, new.major_faults, new.io_stall_ns) == (None,) * 4
    assert trace.header["sampling"]["missing"] == {"a": "b", "c": "d"}
    assert trace.header["sampling"]["limit"] == {"time_ns": 4, "rss_anon_bytes": 11, "limit_bytes": 10}
