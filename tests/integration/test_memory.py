"""Peak memory of real loads: against a reader of our own, and what it was made of."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from processes import Done, environment, finish, journal_of, pid_of, start, wait_for

import hftrace
from hftrace.analysis.memory.composition import composition, main_load
from hftrace.analysis.summary import summary
from hftrace.synth import plan, write

transformers = pytest.importorskip("transformers")

VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
# Every loader has a Mixtral; the 5.x one fuses its experts.
KINDS = {
    "same": ("dense", ["--dtype", "bfloat16"]),
    "up": ("dense", ["--dtype", "float32"]),
    "bin": ("pickled", ["--dtype", "bfloat16"]),
    "bin-up": ("pickled", ["--dtype", "float32"]),
    "offload": ("dense", ["--dtype", "bfloat16", "--device-map", "auto", "--offload-folder", "offloaded"]),
    "moe": ("experts", ["--dtype", "bfloat16"]),
}
SIZE = 200e6
RESOLUTION = 64 * 4096 * (os.cpu_count() or 1) * 3
"""The kernel counts up to 64 pages a core apart, for each of anonymous, file-backed and shared memory."""


class Reader:
    """Reads a process's resident memory a thousand times a second; ``highest`` is in bytes."""

    def __init__(self, pid):
        self.highest = 0
        self._stopped = threading.Event()
        self._file = os.open(f"/proc/{pid}/status", os.O_RDONLY)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        # VmHWM is reset by the tracer; VmRSS is the kernel's current figure.
        while not self._stopped.is_set():
            try:
                text = os.pread(self._file, 4096, 0)
            except OSError:
                return
            at = text.find(b"VmRSS:")
            if at < 0:
                return
            self.highest = max(self.highest, int(text[at + 6 : text.find(b"kB", at)]) * 1024)
            time.sleep(0.001)

    def stop(self):
        self._stopped.set()
        self._thread.join()
        os.close(self._file)
        return self.highest


@dataclass
class Measured:
    """A load, and what our own reader saw of it."""

    done: Done
    trace: hftrace.Trace
    highest: int


@pytest.fixture(scope="module")
def loads(tmp_path_factory):
    place = tmp_path_factory.mktemp("memory")
    for name, architecture, file_format in (
        ("dense", "llama-2-7b", "safetensors"),
        ("pickled", "llama-2-7b", "bin"),
        ("experts", "mixtral-8x7b", "safetensors"),
    ):
        write(plan(architecture, size="200MB", max_shard_size="60MB"), place / name, format=file_format)

    def load(name, attempt):
        model, options = KINDS[name]
        if name == "offload":
            options = [*options, "--max-memory", json.dumps({"cpu": "120MB"})]
        folder = place / f"{name}-{attempt}"
        process = start(
            ["load", place / model, *options, "-q", "-o", "out.json"],
            folder,
            environment(),
        )
        journal = wait_for(lambda: process.poll() is not None or journal_of(folder), "the journal")
        assert journal is not True, finish(process, folder).stderr
        reader = Reader(pid_of(journal))
        done = finish(process, folder)
        highest = reader.stop()
        assert done.code == 0, done.stderr
        return Measured(done, hftrace.Trace.open(folder / "out.json"), highest)

    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(load, name, 0) for name in KINDS}

        def get(name, attempt=0):
            return futures[name].result() if attempt == 0 else load(name, attempt)

        yield get


@pytest.mark.parametrize("name", KINDS)
def test_the_peak_agrees_with_an_independent_reader(loads, name):
    """Within 1 %. A reader that a busy machine kept from reading misses a short peak: up to three tries."""
    seen = []
    for attempt in range(3):
        measured = loads(name, attempt)
        peak = summary(measured.trace)["rss_peak_bytes"]
        # The watermark is exact but for the kernel's own counting: nobody can have seen more.
        assert peak >= measured.highest - RESOLUTION
        seen.append((peak, measured.highest))
        if peak <= 1.01 * measured.highest:
            return
    raise AssertionError(f"the peak, and the highest value read: {seen}")


@pytest.mark.parametrize("name", KINDS)
def test_at_least_95_percent_of_the_rise_are_explained(loads, name):
    trace = loads(name).trace
    row = main_load(trace)
    assert row is not None
    made = composition(trace, row)
    assert made is not None
    assert sum(part.bytes for part in made.parts) == made.peak_bytes
    assert made.explained is not None
    # Of a rise of 10 MB, 5 % are less than the kernel's counters resolve.
    assert made.explained >= 0.95 or abs(made.parts[-1].bytes) < RESOLUTION, made.parts


def parts(loads, name):
    trace = loads(name).trace
    made = composition(trace, main_load(trace))
    sums = {}
    for part in made.parts:
        sums[part.kind, part.memory] = sums.get((part.kind, part.memory), 0) + part.bytes
    return made, sums


MAPS_PICKLES = VERSION > (4, 36)
"""4.36 has torch read a whole pickle into memory."""


def test_which_copies_an_upcast_needs(loads):
    stored = sum(row.stored_bytes or 0 for row in loads("up").trace.tensors)
    for name in ("up", "bin-up"):
        made, sums = parts(loads, name)
        assert sums["parameters", "anonymous"] == pytest.approx(2 * stored, rel=0.02)
        sources = sums["sources", "file" if name == "up" or MAPS_PICKLES else "anonymous"]
        if VERSION >= (5, 0):
            # All files stay mapped until the last tensor is in the model.
            assert sources == pytest.approx(stored, rel=0.02)
        else:
            # One shard at a time.
            assert 0.05 * stored < sources < 0.6 * stored
        assert made.time_ns is not None


COPIES = VERSION == (4, 50)
"""4.50 uses the first shard right out of the map, and copies the others."""
INITIALIZES = (5, 8) <= VERSION < (5, 12)
"""5.8 has more anonymous memory than the weights take in initialize_weights, for a moment."""
MIXED = (4, 44) <= VERSION < (4, 48)
"""Experts that were built, and initialised, are written into, but for those of the first shard."""
COPIES_ALL = VERSION < (4, 43)
"""Up to 4.42 a model that was not built on the meta device is written into, whatever the dtype."""


def test_nothing_is_copied_where_the_dtype_is_the_same(loads):
    for name in ("same", "offload"):
        made, sums = parts(loads, name)
        copied = sums.get(("parameters", "anonymous"), 0)
        if COPIES and name == "same":
            assert 0.5 * SIZE < copied < 0.9 * SIZE
        elif COPIES_ALL and name == "same":
            stored = sum(row.stored_bytes or 0 for row in loads(name).trace.tensors)
            assert copied == pytest.approx(stored, rel=0.02)
        else:
            # What the model computes itself is a few hundred bytes; up to 4.42 each layer has tables.
            rows = loads(name).trace.tensors
            computed = sum(row.bytes or 0 for row in rows if row.provenance == "computed")
            assert copied < computed + 0.01 * SIZE
            assert made.peak_bytes - made.start_bytes < (2.5 if INITIALIZES else 0.5) * SIZE


def test_fused_experts_are_copies(loads):
    trace = loads("moe").trace
    fused = sum(row.bytes for row in trace.tensors if row.provenance == "converted")
    assert bool(fused) == (VERSION >= (5, 0))
    _, sums = parts(loads, "moe")
    if COPIES_ALL:
        stored = sum(row.stored_bytes or 0 for row in trace.tensors)
        held = sum(row.bytes or 0 for row in trace.tensors)
        assert 0.98 * stored <= sums["parameters", "anonymous"] <= held + 0.01 * SIZE
    elif MIXED:
        # Nothing of it can be more than the process grew by, as the kernel counts it.
        (load,) = trace.loads
        grown = load.rss_anon_bytes - load.rss_anon_start_bytes
        assert 0.5 * SIZE < sums["parameters", "anonymous"] <= grown < 0.9 * SIZE
    elif not COPIES:
        assert fused <= sums.get(("parameters", "anonymous"), 0) < fused + 0.01 * SIZE
