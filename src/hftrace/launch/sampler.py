"""Reads the memory of another process at a steady rate, from outside.

Run as a program: ``python sampler.py PID OUTPUT RATE_HZ``. It imports the
standard library alone and is started without ``site``, so that it is up within
some 20 ms, costs the traced process nothing (no thread in it, no lock of its
interpreter) and survives it. It ends when the process has ended or when its
own standard input is closed.

Linux reads ``/proc/PID/status`` (RssAnon, RssFile, RssShmem, VmSwap),
``/proc/PID/io`` (read_bytes: what came from storage) and ``/proc/PID/stat``
(processor time); elsewhere psutil gives the total, and what is missing stays
null.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time

_FIELDS = (b"RssAnon:", b"RssFile:", b"RssShmem:", b"VmSwap:")


class ProcReader:
    """Reads Linux's counters of one process through files that stay open.

    Args:
        pid: The process.

    Raises:
        OSError: There is no such process, or no ``/proc``.
    """

    source = "proc"

    def __init__(self, pid: int) -> None:
        self._status = os.open(f"/proc/{pid}/status", os.O_RDONLY)
        self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            self._io: int | None = os.open(f"/proc/{pid}/io", os.O_RDONLY)
        except OSError:
            self._io = None
        self._tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def read(self) -> list[int | None] | None:
        """Returns anonymous, file, shared, swap, storage read (bytes) and cpu (ns); None once ended."""
        try:
            status = os.pread(self._status, 4096, 0)
            values: list[int | None] = []
            for field in _FIELDS:
                start = status.find(field)
                if start < 0:
                    values.append(None)
                else:
                    values.append(int(status[start + len(field) : status.find(b" kB", start)]) * 1024)
            if values[0] is None:
                return None  # a zombie has no memory left to report
            storage = None
            if self._io is not None:
                text = os.pread(self._io, 1024, 0)
                start = text.find(b"read_bytes:")
                storage = int(text[start + 11 : text.find(b"\n", start)])
            # The command's name may hold spaces and parentheses; the fields begin behind the last one.
            fields = os.pread(self._stat, 2048, 0).rpartition(b")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) * self._tick_ns
        except (OSError, ValueError, IndexError):
            return None
        return [*values, storage, cpu]


class PsutilReader:
    """Reads what psutil knows, where there is no ``/proc``. Not tested on macOS and Windows yet."""

    source = "psutil"

    def __init__(self, pid: int) -> None:
        import psutil

        self._process = psutil.Process(pid)
        self._gone = psutil.Error

    def read(self) -> list[int | None] | None:
        """Returns the total resident memory in place of the anonymous part, and processor time."""
        try:
            with self._process.oneshot():
                memory = self._process.memory_info()
                cpu = self._process.cpu_times()
        except self._gone:
            return None
        return [memory.rss, None, None, None, None, int((cpu.user + cpu.system) * 1e9)]


def sample(pid: int, output: str, rate_hz: float) -> None:
    """Samples ``pid`` into ``output`` until it has ended or standard input is closed."""
    try:
        reader: ProcReader | PsutilReader = ProcReader(pid)
    except OSError:
        if os.path.isdir("/proc/self"):
            return  # there is a /proc, but the process has ended
        reader = PsutilReader(pid)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    header = {
        "schema": "hftrace.samples",
        "version": 1,
        "pid": pid,
        "rate_hz": rate_hz,
        "source": reader.source,
    }
    os.write(file, (json.dumps(["header", header]) + "\n").encode())
    interval = 1 / rate_hz
    due = time.monotonic()
    while True:
        now = time.monotonic_ns()
        values = reader.read()
        if values is None:
            break
        numbers = ",".join("null" if value is None else str(value) for value in values)
        os.write(file, f'["sample",{now},{numbers}]\n'.encode())
        due += interval
        pause = due - time.monotonic()
        if pause < -1:
            due = time.monotonic()  # fell behind (a suspended machine): no burst to catch up
        # One call is both the pause and the stop signal.
        readable, _, _ = select.select([0], [], [], max(0.0, pause))
        if readable and not os.read(0, 64):
            break
    os.close(file)


if __name__ == "__main__":
    sample(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
