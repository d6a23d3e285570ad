"""Reads the memory of another process at a steady rate, from outside, and kills it at a limit if asked to.

Run as a program: ``python sampler.py PID OUTPUT OPTIONS``, the options a JSON object (see
:class:`Options`). It imports the standard library alone and is started without ``site``, so that it is up
within some 20 ms, costs the traced process nothing (no thread in it, no lock of its interpreter) and
survives it. It ends when the process has ended, or when ``q`` arrives on its standard input. Where
standard input ends without it, the supervisor has died, and samples of a load that goes on are worth more
than ever. A time-out that the supervisor was to keep is kept by the sampler then, and a little later too
where the supervisor lives and cannot (its terminal has stopped it).

What Linux is asked for each sample, and what one reading costs (on a process with torch in it):

======================================  ======  ===============================================
``/proc/PID/status``                    7.7 µs  anonymous, file, shared, swap
``/proc/meminfo``                       6.6 µs  MemAvailable
``/proc/PID/stat``                      3.9 µs  processor time, faults
pressure file of the group, or /proc    2.6 µs  time that waited for memory (PSI)
the same for io                         2.6 µs  time that waited for storage (PSI)
``/proc/PID/io``                        2.1 µs  bytes that came from storage
usage file of the control group         1.2 µs  memory charged to the group
======================================  ======  ===============================================

That is 27 µs for the kernel's part. With all else the sampler takes 1.5 % of a processor at
50 samples a second, 12 % at 1000, and a limit adds 3 % (on a busy machine of two cores).
``/proc/PID/statm`` (1.7 µs) has the exact anonymous part too, but adds file-backed
and shared memory up; it is read for the limit, which is looked at more often.

Elsewhere psutil gives the total, and what is missing stays null, with the reason in the header line. What
Linux without CUDA does not need is in parts beside this file (``sampler_psutil`` ...), loaded when needed.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    # dataclasses and typing would make the start twice as long.
    from typing import Any

    from hftrace.launch.sampler_limits import Deadline, Killer
    from hftrace.launch.sampler_nvml import DeviceWatch
    from hftrace.launch.sampler_psutil import PsutilReader

_FIELDS = (b"RssAnon:", b"RssFile:", b"RssShmem:", b"VmSwap:")
LIMIT_HZ = 500.0
"""How often a limit is looked at, whatever the rate of the samples: at 5 GB/s, the fastest that one
thread can touch new pages, the process is at most some 10 MB above the limit when it is killed."""
MAX_PAUSE_SECONDS = 1.0


class Options:
    """What the sampler is asked for.

    Args:
        rate_hz: Samples per second; 0 writes none but the last one before a kill.
        limit_bytes: Kill the process when its anonymous memory is larger.
        cgroup_file: Holds the memory charged to the process's control group.
        pressure_file: Holds memory stall times in the format of ``/proc/pressure/memory``.
        io_pressure_file: The same for storage.
        nvml_directory: Where the module ``pynvml`` lies, for memory used per CUDA device.
        missing: What is known not to be readable, with the reason.
        deadline_ns: Kill the process when the monotonic clock says this, if nobody else has.
        timeout_seconds: How long after the start that is.
        log: The supervisor's log, which is told so.
        then: A command that this process becomes when the other one is gone and has not said ``q``.
    """

    def __init__(
        self,
        rate_hz: float,
        limit_bytes: int | None = None,
        cgroup_file: str | None = None,
        pressure_file: str | None = None,
        nvml_directory: str | None = None,
        missing: dict[str, str] | None = None,
        deadline_ns: int | None = None,
        timeout_seconds: float | None = None,
        log: str | None = None,
        io_pressure_file: str | None = None,
        then: list[str] | None = None,
    ) -> None:
        self.then = then
        self.io_pressure_file = io_pressure_file
        self.rate_hz = rate_hz
        self.limit_bytes = limit_bytes
        self.cgroup_file = cgroup_file
        self.pressure_file = pressure_file
        self.nvml_directory = nvml_directory
        self.missing = missing or {}
        self.deadline_ns = deadline_ns
        self.timeout_seconds = timeout_seconds
        self.log = log


def stall_ns(text: bytes) -> int | None:
    """Returns the total time in ns that any process waited, from the text of a PSI file; None without it."""
    line = next((line for line in text.splitlines() if line.startswith(b"some ")), b"")
    _, mark, total = line.partition(b"total=")
    return int(total) * 1000 if mark and total.isdigit() else None


def status_bytes(text: bytes) -> list[int | None]:
    """Returns anonymous, file, shared and swapped bytes from the text of ``/proc/PID/status``."""
    values: list[int | None] = []
    for name in _FIELDS:
        start = text.find(name)
        values.append(int(text[start + len(name) : text.find(b" kB", start)]) * 1024 if start >= 0 else None)
    return values


def available_bytes(text: bytes) -> int | None:
    """Returns MemAvailable, in bytes, from the text of ``/proc/meminfo``; None where it is not in it."""
    start = text.find(b"MemAvailable:")
    return int(text[start + 13 : text.find(b" kB", start)]) * 1024 if start >= 0 else None


def pause_of(options: Options) -> float | None:
    """Returns how long it waits between two looks, in seconds; None where there is nothing to be done."""
    pauses = [1 / options.rate_hz] if options.rate_hz else []
    if options.limit_bytes is not None:
        pauses.append(1 / LIMIT_HZ)
    if options.deadline_ns is not None:
        pauses.append(MAX_PAUSE_SECONDS)
    return min(pauses, default=None)


class ProcReader:
    """Reads Linux's counters of one process through files that stay open.

    Args:
        pid: The process.
        options: Which other files to read.

    Raises:
        OSError: There is no such process, or no ``/proc``.
    """

    source = "proc"

    def __init__(self, pid: int, options: Options) -> None:
        self.missing: dict[str, str] = dict(options.missing)
        self._status = os.open(f"/proc/{pid}/status", os.O_RDONLY)
        self._statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
        self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        self._io = self._open(f"/proc/{pid}/io", "storage_read_bytes")
        self._meminfo = self._open("/proc/meminfo", "available_bytes")
        self._cgroup = self._open(options.cgroup_file, "cgroup_bytes")
        self._pressure = self._open(options.pressure_file, "memory_stall_ns")
        self._io_pressure = self._open(options.io_pressure_file, "io_stall_ns")
        self.more: list[int | None] = [None] * 5  # as the last five of a schema.lines.Sample
        self._tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")

    def _open(self, path: str | None, column: str) -> int | None:
        """Opens a file that may be missing; one that cannot be read now is not tried again."""
        if path is None:
            self.missing.setdefault(column, "there is no such counter here")
            return None
        try:
            file = os.open(path, os.O_RDONLY)
            try:
                os.pread(file, 64, 0)
            except OSError:
                os.close(file)
                raise
        except OSError as error:
            self.missing[column] = f"{path}: {error.strerror}"
            return None
        return file

    def anonymous(self) -> int | None:
        """Returns anonymous bytes alone, quickly; None once the process has ended."""
        try:
            _, resident, shared, _ = os.pread(self._statm, 256, 0).split(maxsplit=3)
        except (OSError, ValueError):
            return None
        return (int(resident) - int(shared)) * self._page if resident != b"0" else None

    def read(self) -> list[int | None] | None:
        """Reads everything.

        Returns:
            Anonymous, file, shared, swap, storage read (bytes), cpu (ns),
            memory of the control group (bytes), memory stall (ns) and available
            memory of the machine (bytes); None once the process has ended.
        """
        try:
            values = status_bytes(os.pread(self._status, 4096, 0))
            if values[0] is None:
                return None  # a zombie has no memory left to report
            storage = None
            if self._io is not None:
                text = os.pread(self._io, 1024, 0)
                storage = int(text.partition(b"read_bytes:")[2].partition(b"\n")[0])
                self.more[4] = int(text.partition(b"rchar:")[2].partition(b"\n")[0])
            # The command's name may hold spaces and parentheses; the fields begin behind the last one.
            fields = os.pread(self._stat, 2048, 0).rpartition(b")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) * self._tick_ns
            self.more[:3] = int(fields[12]) * self._tick_ns, int(fields[7]), int(fields[9])
        except (OSError, ValueError, IndexError):
            return None
        return [*values, storage, cpu, *self._surroundings()]

    def _surroundings(self) -> list[int | None]:
        group = stall = available = None
        try:
            if self._cgroup is not None:
                group = int(os.pread(self._cgroup, 64, 0))
        except (OSError, ValueError):
            pass  # the group may be gone before the process is
        try:
            if self._pressure is not None:
                stall = stall_ns(os.pread(self._pressure, 512, 0))
            if self._meminfo is not None:
                available = available_bytes(os.pread(self._meminfo, 512, 0))
            if self._io_pressure is not None:
                self.more[3] = stall_ns(os.pread(self._io_pressure, 512, 0))
        except (OSError, ValueError):
            pass
        return [group, stall, available]


def load_part(name: str) -> Any:
    """Returns a module that lies beside this file, which is part of a package unless it was started by path.

    Raises:
        ImportError: It is not there.
    """
    import importlib

    if __package__:
        return importlib.import_module(f"{__package__}.{name}")
    # Behind the standard library: nothing else in this directory may be found first.
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    return importlib.import_module(name)


def _numbers(values: list[int | None]) -> str:
    return ",".join("null" if value is None else str(value) for value in values)


class Sampler:
    """Samples one process into one file.

    Args:
        pid: The process.
        output: The file, which is appended to.
        options: What to do.
        words: A descriptor on which ``q`` arrives where it is enough.

    Raises:
        OSError: The process has ended, or the file cannot be written.
    """

    def __init__(self, pid: int, output: str, options: Options, words: int = 0) -> None:
        self._reader: ProcReader | PsutilReader
        try:
            self._reader = ProcReader(pid, options)
        except OSError:
            if os.path.isdir("/proc/self"):
                raise  # there is a /proc, but the process has ended
            self._reader = load_part("sampler_psutil").PsutilReader(pid, options.missing)
        self._pid = pid
        self._options = options
        self._file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._words = words
        self._cut = False
        self._interval = 1 / options.rate_hz if options.rate_hz else None
        self._limit = options.limit_bytes
        self._killer: Killer | None = None
        self._deadline: Deadline | None = None
        if options.limit_bytes is not None or options.deadline_ns is not None:
            limits = load_part("sampler_limits")
            self._killer = limits.Killer(pid)
            if options.deadline_ns is not None:
                self._deadline = limits.Deadline(
                    self._killer, options.deadline_ns, options.timeout_seconds, options.log
                )
        self._devices: DeviceWatch | None = None
        if options.nvml_directory is not None and self._interval is not None:
            self._watch_devices(options.nvml_directory, max(self._interval, 0.01))
        self._listening = True

    def _watch_devices(self, nvml_directory: str, interval: float) -> None:
        try:
            nvml = load_part("sampler_nvml")
        except ImportError as error:  # this file was copied without it
            self._reader.missing["device_used_bytes"] = f"NVML: {error}"
            return
        self._devices = nvml.DeviceWatch(nvml_directory, os.environ.get("CUDA_VISIBLE_DEVICES"), interval)
        self._devices.start()

    @property
    def sees(self) -> bool:
        """Whether there is memory to be read: not where the process is about to end."""
        return self._reader.read() is not None

    def _write(self, text: str) -> None:
        data = (text + "\n").encode("ascii")
        try:
            # What a full disk has cut off is not to spoil this line as well.
            data = b"\n" * self._cut + data
            self._cut = os.write(self._file, data) < len(data)
        except OSError:
            self._cut = True  # a limit holds on a full disk too

    def _write_header(self, missing: dict[str, str]) -> None:
        header = {
            "schema": "hftrace.samples",
            "version": 1,
            "pid": self._pid,
            "rate_hz": self._options.rate_hz,
            "source": self._reader.source,
            "limit_bytes": self._options.limit_bytes,
            "missing": missing,
        }
        self._write(json.dumps(["header", header]))

    def _sample(self) -> bool:
        """Writes one sample; returns False once the process has ended."""
        now = time.monotonic_ns()
        values = self._reader.read()
        if values is None:
            return False
        numbers, more = map(_numbers, (values, self._reader.more))
        used = "null"
        if self._devices is not None:
            if self._devices.reason is not None:
                self._write_header({"device_used_bytes": self._devices.reason})
                self._devices = None
            elif self._devices.latest is not None:
                used = json.dumps(self._devices.latest)
        self._write(f'["sample",{now},{numbers},{used},{more}]')
        return True

    def _kill_at_limit(self) -> bool:
        """Kills the process where it is above the limit; returns False once it has ended."""
        if self._limit is None and self._interval is not None:
            return True  # the next sample will show it
        anonymous = self._reader.anonymous()
        if anonymous is None:
            return False
        if self._limit is not None and self._killer is not None and anonymous > self._limit:
            # Written first: the supervisor must know, even if this process dies with the other one.
            self._write(json.dumps(["limit", time.monotonic_ns(), anonymous, self._limit]))
            self._sample()
            self._killer.kill()
            self._limit = None
        return True

    def run(self) -> bool:
        """Samples until the process has ended, or until it is enough; returns whether somebody said so."""
        told = False
        self._write_header(self._reader.missing)
        look = pause_of(self._options)
        if look is None:
            return True
        due = next_sample = time.monotonic()
        while self._kill_at_limit():
            if self._deadline is not None:
                self._deadline.look(self._listening)
            if self._interval is not None and time.monotonic() >= next_sample - look / 2:
                if not self._sample():
                    break
                next_sample += self._interval
            due += look
            pause = due - time.monotonic()
            if pause < -look:  # a burst to catch up would tell nothing, and hide what was missed
                due, next_sample = (now := time.monotonic()), max(next_sample, now)
            told = self._told_to_stop(max(0.0, pause))
            if told:
                break
        os.close(self._file)
        return told

    def _told_to_stop(self, pause: float) -> bool:
        """Waits; one call is both the pause and the stop signal."""
        if not self._listening:
            time.sleep(pause)
            return False
        readable, _, _ = select.select([self._words], [], [], pause)
        if readable:
            word = os.read(self._words, 64)
            self._listening = bool(word)
            return b"q" in word
        return False


if __name__ == "__main__":
    try:
        asked = Options(**json.loads(sys.argv[3]))
        if not Sampler(int(sys.argv[1]), sys.argv[2], asked).run() and asked.then:
            os.execv(asked.then[0], asked.then)
    except OSError:
        sys.exit(1)
