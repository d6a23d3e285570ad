"""Which process is which: a number is given again, a number with a start time is not."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path


def start_ticks(pid: int) -> int | None:
    """Returns when a process was started, in clock ticks since the machine's start; None without such a one.

    Together with its number that is the identity of a process. One that has
    ended and was not waited for does not count.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19]) if fields[0] not in (b"Z", b"X") else None
    except (OSError, ValueError, IndexError):
        return None


def started_ns(pid: int) -> int | None:
    """Returns when a process was started, on the monotonic clock, to a hundredth of a second."""
    ticks = start_ticks(pid)
    if ticks is None:
        return None
    # Ticks also count while the machine sleeps; the monotonic clock does not.
    slept = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK")) - slept


def children_of(pid: int, thread: int | None = None) -> list[int]:
    """Returns the living children of a process, those of each thread in the order in which it started them.

    Args:
        pid: The process.
        thread: Of this thread of it alone.

    Returns:
        None of them where the kernel does not list them (``CONFIG_PROC_CHILDREN``).
    """
    found: list[int] = []
    try:
        tasks = [str(thread)] if thread is not None else os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        with contextlib.suppress(OSError, ValueError):  # a thread that has ended
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_bytes().split())
    return found


def waited_cpu_ns() -> int | None:
    """Returns the CPU time of all children that this process has waited for; None where nobody counts it."""
    try:
        import resource
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round((used.ru_utime + used.ru_stime) * 1e9)


class _Helpers(threading.local):
    starting = False


helpers: set[int] = set()
"""Processes that hftrace itself has started: they are none of the program's."""
_helpers = _Helpers()


@contextlib.contextmanager
def starting_helper() -> Iterator[None]:
    """Says that a process which this thread starts meanwhile is hftrace's own."""
    _helpers.starting = True
    try:
        yield
    finally:
        _helpers.starting = False


def starts_helper() -> bool:
    """Returns whether this thread starts a process of hftrace's own just now."""
    return _helpers.starting
