"""The allocator's figures and the driver's, from recorder and sampler to the screen, without a GPU."""

from __future__ import annotations

import os
import sys
import time
import types

import pytest

from fake_devices import Allocator, Driver
from hftrace.analysis.memory.device_peak import highest_device_peaks
from hftrace.analysis.memory.usage import process_memory
from hftrace.analysis.summary import summary
from hftrace.launch import sampling
from hftrace.record.recorder import Recorder
from hftrace.render.views import load
from hftrace.render.views.options import ViewOptions
from hftrace.replay.trace import replay
from hftrace.schema import journal

MB = 1_000_000
OTHERS = 645 * MB
"""What the driver says is in use before this process uses a device: more than the load ever has."""


class Machine:
    """A process that loads onto devices that are not there; what is recorded, hftrace itself records."""

    def __init__(self, folder, monkeypatch, *, devices=1, nvml=True, initialized=False, **options):
        self.allocator = Allocator(devices)
        self.allocator.initialized = initialized
        monkeypatch.setitem(
            sys.modules, "torch", types.SimpleNamespace(cuda=self.allocator, accelerator=None)
        )
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        self.driver = None
        if nvml:
            place = folder / "nvml"
            place.mkdir()
            self.driver = Driver(place, [OTHERS] * devices)
        where = (str(self.driver.folder), "") if self.driver else (None, "pynvml is not installed")
        monkeypatch.setattr(sampling, "nvml_directory", lambda: where)
        self.folder = folder
        # A device has a context, and so an answer to what is in use of it, once something is on it.
        self.allocator.mem_get_info = lambda index: (
            8000 * MB - OTHERS - self.allocator.reserved[index],
            8000 * MB,
        )
        self.recorder = Recorder(folder, rank=0, **options)
        self.recorder.start()
        self.sampler = sampling.SamplerProcess(
            os.getpid(), folder, sampling.sampler_options(os.getpid(), 100)
        )
        self.wait_for_samples()

    def wait_for_samples(self):
        """Waits until there are two more samples, with figures of the driver if there is one."""
        path = journal.samples_path(self.folder, os.getpid())
        wanted, deadline = None, time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = path.read_text().splitlines() if path.exists() else []
            found = [line for line in lines if '"sample"' in line and (not self.driver or "cuda:0" in line)]
            wanted = len(found) + 2 if wanted is None else wanted
            if len(found) >= wanted:
                return
            time.sleep(0.01)
        raise AssertionError(f"no samples in {path}")

    def allocate(self, *sizes):
        self.allocator.initialized = True
        for index, size in enumerate(sizes):
            self.allocator.allocate(index, size)
        if self.driver:
            self.driver.say([size + 300 * MB if size else 0 for size in self.allocator.reserved])

    def load(self, *sizes, passing=0, killed=False):
        """A load that puts as many bytes on each device, and more on the first one that it gives back."""
        outer = self.recorder.begin("load", "Model")
        config = self.recorder.begin("config", "AutoConfig")
        if killed:
            self.allocator.initialized = (
                True  # in use, and nothing on it yet: that is described, and again later
            )
            time.sleep(0.15)
        self.wait_for_samples()
        self.recorder.end(config)
        weights = self.recorder.begin("weights", "_load_pretrained_model")
        if sizes:
            self.allocate(*sizes)
            self.allocate(passing)
            self.allocate(-passing)
        self.wait_for_samples()
        if killed:
            time.sleep(0.15)  # a reading of the allocator comes every 35 ms
            return
        self.recorder.end(weights)
        self.recorder.end(outer)

    def trace(self, *, killed=False):
        self.sampler.stop()
        if killed:
            found = replay(self.folder)  # nothing has said that it stops
            self.recorder.stop()
            return found
        self.recorder.stop()
        return replay(self.folder)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = []

    def make(**options):
        made.append(Machine(tmp_path, monkeypatch, **options))
        return made[-1]

    yield make
    for each in made:
        each.sampler.stop()


def check(trace):
    """Asserts what holds for every device of every load."""
    for peak in highest_device_peaks(trace):
        assert all(part.bytes > 0 for part in peak.parts), peak
        assert sum(part.bytes for part in peak.parts) == peak.peak_bytes
    (process,) = process_memory(trace)
    for device, readings in process.devices.items():
        highest = max(reading.allocated_bytes for reading in readings)
        assert highest <= process.device_peaks[device] < OTHERS, "this is the driver's"
    text = drawn(trace, "memory") + drawn(trace, "summary") + drawn(trace, "timeline")
    assert "-6" not in text
    return process


def drawn(trace, view):
    from rich.console import Console

    from hftrace.render.text import stack

    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(stack(*load(view).draw(trace, ViewOptions())))
    return capture.get()


@pytest.mark.parametrize("nvml", [True, False])
def test_a_load_onto_a_device_that_was_not_in_use(machine, nvml):
    here = machine(nvml=nvml)
    here.load(200 * MB, passing=50 * MB)
    trace = here.trace()
    process = check(trace)
    (peak,) = highest_device_peaks(trace)
    assert (peak.peak_bytes, peak.allocated_bytes) == (250 * MB, 200 * MB)
    # There is no ledger here: what the load put there is not explained, and none of it was there before.
    assert [(part.kind, part.bytes) for part in peak.parts] == [("rest", 250 * MB)]
    assert peak.explained == 0
    assert process.device_peaks == {"cuda:0": 250 * MB}
    assert bool(process.driver) is nvml
    assert summary(trace)["device_peak_bytes"] == {"cuda:0": 250 * MB}
    text = drawn(trace, "memory")
    assert ("cuda:0: the driver says that at most 1.20 GB were in use, by all processes" in text) is nvml


def test_what_the_allocator_had_before(machine):
    here = machine(initialized=True)
    here.allocate(100 * MB)
    here.load(200 * MB)
    trace = here.trace()
    check(trace)
    (peak,) = highest_device_peaks(trace)
    assert [(part.kind, part.bytes) for part in peak.parts] == [("before", 100 * MB), ("rest", 200 * MB)]


def test_two_devices_of_which_one_is_unused(machine):
    here = machine(devices=2)
    here.load(200 * MB, 0)
    trace = here.trace()
    process = check(trace)
    assert [peak.device for peak in highest_device_peaks(trace)] == ["cuda:0"]
    assert process.device_peaks == {"cuda:0": 200 * MB, "cuda:1": 0}
    assert (
        "cuda:1: the driver says that at most 645 MB were in use, by all processes; torch's allocator had"
        in (drawn(trace, "memory"))
    )
    assert "cuda:1" not in drawn(trace, "summary")


def test_two_devices(machine):
    here = machine(devices=2)
    here.load(200 * MB, 120 * MB)
    trace = here.trace()
    check(trace)
    assert [(peak.device, peak.peak_bytes) for peak in highest_device_peaks(trace)] == [
        ("cuda:0", 200 * MB),
        ("cuda:1", 120 * MB),
    ]


@pytest.mark.parametrize("nvml", [True, False])
def test_a_load_that_is_killed(machine, nvml):
    here = machine(nvml=nvml)
    here.load(200 * MB, killed=True)
    trace = here.trace(killed=True)
    assert trace.loads[0].status == "killed"
    (device,) = trace.environment["devices"]
    assert (device["used_bytes"], device["outside_allocator_bytes"]) == (OTHERS + 200 * MB, OTHERS)
    check(trace)
    (peak,) = highest_device_peaks(trace)
    assert (peak.peak_bytes, [part.kind for part in peak.parts]) == (200 * MB, ["rest"])
    assert peak.explained == 0


@pytest.mark.parametrize("nvml", [True, False])
def test_an_allocator_that_was_never_asked(machine, nvml):
    here = machine(nvml=nvml)
    here.load()
    trace = here.trace()
    (process,) = process_memory(trace)
    assert highest_device_peaks(trace) == []
    assert (process.devices, process.device_peaks) == ({}, {})
    assert summary(trace)["device_peak_bytes"] is None
    said = (
        "cuda:0: the driver says that at most 645 MB were in use, by all processes; "
        "torch's allocator was not in use"
    )
    assert (said in " ".join(drawn(trace, "memory").split())) is nvml
    assert "cuda:0" not in drawn(trace, "summary") + drawn(trace, "timeline")


@pytest.mark.parametrize("later", [0, 450 * MB])
def test_where_torch_s_own_peak_is_left_alone_an_older_one_is_not_the_load_s(machine, later):
    here = machine(initialized=True, exact_peaks=False)
    here.allocate(500 * MB)
    here.allocate(-500 * MB)
    here.load(100 * MB, passing=later)
    trace = here.trace()
    check(trace)
    (peak,) = highest_device_peaks(trace)
    assert peak.peak_bytes == 100 * MB + later
    assert "its peak where that rose" in trace.header["measured"]["spans.device_peak_bytes"]
