"""Starts and stops the sampler's process."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from hftrace.launch import sampler
from hftrace.schema.journal import samples_path
from hftrace.system.cgroups import MemoryGroup, memory_group
from hftrace.system.descriptors import Descriptor
from hftrace.system.processes import helpers, starting_helper

SAMPLER = Path(sampler.__file__)
DEFAULT_RATE_HZ = 50.0
SYSTEM_PRESSURE = "/proc/pressure/memory"
SYSTEM_IO_PRESSURE = "/proc/pressure/io"


def nvml_directory() -> tuple[str | None, str]:
    """Returns where the module ``pynvml`` lies, or None and why there is none."""
    try:
        spec = importlib.util.find_spec("pynvml")
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        return None, "pynvml is not installed: pip install 'hftrace[nvml]'"
    place = Path(spec.origin).parent
    # Older releases are a package and not a module.
    return str(place.parent if spec.submodule_search_locations else place), ""


def pressure_file(group: MemoryGroup | None) -> str | None:
    """Returns the file with memory stall times: the control group's own, else the machine's."""
    return _readable(group.pressure_file if group is not None else None, SYSTEM_PRESSURE)


def io_pressure_file(group: MemoryGroup | None) -> str | None:
    """Returns the same for storage."""
    memory = group.pressure_file if group is not None else None
    return _readable(memory.with_name("io.pressure") if memory is not None else None, SYSTEM_IO_PRESSURE)


def _readable(own: Path | None, of_machine: str) -> str | None:
    for path in (own, Path(of_machine)):
        if path is not None:
            try:
                # With PSI compiled in and switched off, the file is there and cannot be read.
                path.read_bytes()
            except OSError:
                continue
            return str(path)
    return None


def sampler_options(
    pid: int, rate_hz: float = DEFAULT_RATE_HZ, limit_bytes: int | None = None
) -> sampler.Options:
    """Returns what a sampler is told to do, with the files that it reads on this machine.

    Args:
        pid: Whom to sample.
        rate_hz: Readings per second; 0 for none, which makes sense with a limit alone.
        limit_bytes: Kill the process when its anonymous memory is larger.
    """
    group = memory_group(pid)
    nvml, reason = nvml_directory()
    return sampler.Options(
        rate_hz,
        limit_bytes,
        cgroup_file=str(group.usage_file) if group is not None else None,
        pressure_file=pressure_file(group),
        io_pressure_file=io_pressure_file(group),
        nvml_directory=nvml,
        missing={"device_used_bytes": reason} if nvml is None else {},
    )


@dataclasses.dataclass(frozen=True)
class Problem:
    """What became of a sampler.

    Args:
        how: ``killed``, ``exited``, ``silent`` or ``not-started``.
        signal: Name of the signal that killed it.
        exit_code: What it ended with by itself.
        reason: Why it could not be started.
    """

    how: str
    signal: str | None = None
    exit_code: int | None = None
    reason: str | None = None

    def facts(self) -> dict[str, Any]:
        """Returns what a trace says of it."""
        return {**dataclasses.asdict(self), "time_ns": None, "replaced_by": None}


def ended(code: int) -> Problem:
    """Returns the problem of a sampler that is gone, from its exit code."""
    if code >= 0:
        return Problem("exited", exit_code=code)
    with contextlib.suppress(ValueError):
        return Problem("killed", signal=signal.Signals(-code).name)
    return Problem("killed", signal=f"signal {-code}")


class SamplerProcess:
    """A sampler of one process, in a process of its own.

    Args:
        pid: Whom to sample.
        directory: Where the samples go, beside the journal.
        options: What it is to do; None for samples alone.

    Raises:
        OSError: There is no second process to be had.
    """

    def __init__(self, pid: int, directory: Path, options: sampler.Options | None = None) -> None:
        told = vars(sampler_options(pid) if options is None else options)
        # -S -I: neither site-packages nor the user's environment are needed to read /proc.
        flags = ["-I", "-S"] if sys.platform.startswith("linux") else ["-I"]
        output = samples_path(directory, pid)
        reads, writes = os.pipe()
        self._pipe = Descriptor(writes)
        try:
            self.process = self._started(
                [sys.executable, *flags, str(SAMPLER), str(pid), os.fspath(output), json.dumps(told)], reads
            )
        except BaseException:
            self._pipe.close()
            raise
        finally:
            os.close(reads)
        helpers.add(self.process.pid)

    def _started(self, words: list[str], reads: int) -> subprocess.Popen[bytes]:
        with starting_helper():
            return subprocess.Popen(
                words,
                stdin=reads,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for the load; the sampler ends with the load, or when it is told to.
                start_new_session=True,
            )

    def let_go(self) -> None:
        """Leaves the sampler to itself, as when this process dies: it ends with the one that it samples."""
        self._pipe.close()

    def stop(self) -> Problem | None:
        """Ends the sampler and waits for its last line; returns what had become of it before, if anything."""
        code = self.process.poll()
        problem = ended(code) if code is not None else None
        if code is None and self._pipe.is_ours():
            with contextlib.suppress(OSError):  # it has ended by itself
                os.write(self._pipe.number, b"q")
        self._pipe.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            problem = Problem("silent")
            self.process.kill()
            self.process.wait()
        helpers.discard(self.process.pid)
        return problem
