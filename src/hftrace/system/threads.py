"""What the kernel counts of one thread: processor time, faults, and time that it waited for a processor.

A thread asks for its own figures by one call of ``getrusage`` (0.6 µs). Those of another thread of this
process stand in ``/proc/self/task/TID`` (20 µs, three files): ``stat`` has user and system time in ticks of
10 ms, ``schedstat`` the time spent ready and not running, ``io`` what it read.

How processor time divides into user and system is coarse in both: the kernel looks which of the two runs
when its timer ticks, every 1 to 10 ms.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from typing import Any, NamedTuple

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_WHO: int | None = getattr(resource, "RUSAGE_THREAD", None)
_getrusage: Any = getattr(resource, "getrusage", None)
_TICK_NS = 10_000_000 if not hasattr(os, "sysconf") else 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_BOOT: Any = getattr(time, "CLOCK_BOOTTIME", None)


def own_clocks() -> tuple[int, int, int, int] | tuple[()]:
    """Returns user and system time in ns, minor and major faults of the calling thread, so far.

    Minor faults mapped a page without waiting for storage: a new one, or one of the page cache. Major ones
    waited for it; one may bring in many pages.

    Nothing where the system does not count by thread.
    """
    if _WHO is None:
        return ()
    found = _getrusage(_WHO)
    return int(found[0] * 1e9), int(found[1] * 1e9), found[6], found[7]


class ThreadClocks(NamedTuple):
    """What a thread of this process has used since it was made."""

    time_ns: int
    """When it was read, by the monotonic clock."""
    born_ns: int | None
    """When the thread was made, by the same clock, within 10 ms; None where the machine has no such clock."""
    user_ns: int
    system_ns: int
    minor_faults: int
    major_faults: int
    delay_ns: int | None
    """How long it was ready and no processor was free for it; None where the kernel does not count that."""
    called_bytes: int | None = None
    """Bytes that its calls of ``read`` and the like returned, from wherever; None where nobody counts."""
    storage_bytes: int | None = None
    """Bytes that it made the kernel fetch from storage, by such calls or by page faults."""


class BytesRead(NamedTuple):
    """What a thread or a process has read."""

    called: int | None = None
    """By calls of ``read`` and the like, from wherever the kernel had it."""
    storage: int | None = None
    """From storage, by such calls or by page faults."""


def bytes_read(who: str = "self") -> BytesRead:
    """Returns what was read so far; nothing where the kernel does not count it.

    Args:
        who: A folder of ``/proc``: ``self``, ``thread-self`` for the calling thread, ``self/task/TID``.
    """
    try:
        fields = dict(line.split(b": ") for line in _text(f"/proc/{who}/io").splitlines())
        return BytesRead(int(fields[b"rchar"]), int(fields[b"read_bytes"]))
    except (OSError, ValueError, KeyError):
        return BytesRead()


def clocks_of(thread: int) -> ThreadClocks | None:
    """Returns the figures of a thread of this process by its number; None where they cannot be read."""
    folder = f"/proc/self/task/{thread}/"
    try:
        # A thread's name may hold blanks and parentheses: the fields begin behind the last one.
        fields = _text(folder + "stat").rpartition(b")")[2].split()
        minor, major, user, system = (int(fields[at]) for at in (7, 9, 11, 12))
        started = int(fields[19]) * _TICK_NS
    except (OSError, ValueError, IndexError):
        return None
    delay = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        delay = int(_text(folder + "schedstat").split()[1])
    now = time.monotonic_ns()
    born = now - (time.clock_gettime_ns(_BOOT) - started) if _BOOT is not None else None
    read = bytes_read(f"self/task/{thread}")
    return ThreadClocks(now, born, user * _TICK_NS, system * _TICK_NS, minor, major, delay, *read)


def own_delay_ns() -> int | None:
    """Returns how long the calling thread has been ready without a processor; None where nobody counts it."""
    try:
        return int(_text("/proc/thread-self/schedstat").split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _text(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 1024)
    finally:
        # This runs in threads of ours and in threads that end. The host may meanwhile have closed all
        # descriptors, and have a file of its own by this number.
        if os.fstat(file).st_dev == _proc_device():
            os.close(file)


@functools.cache
def _proc_device() -> int:
    return os.stat("/proc/self/stat").st_dev


class LastWords:
    """Reads a thread's figures when it ends: kept in a ``threading.local``, it goes with the thread.

    Attributes:
        clocks: The figures, once it has ended; None before, and where they could not be read.
    """

    class Sentinel:
        """Lies in the thread's own storage, which the thread itself empties as the last thing."""

        def __init__(self, told: LastWords | None) -> None:
            self._told = told

        def __del__(self) -> None:
            if self._told is not None:
                self._told.say()

    def __init__(self) -> None:
        self.clocks: ThreadClocks | None = None
        self._thread = threading.get_native_id()

    def say(
        self,
        clocks_of: Any = clocks_of,
        own_clocks: Any = own_clocks,
        current: Any = threading.get_native_id,
    ) -> None:
        """Reads the figures, where this is the thread itself; never raises.

        What it calls is kept as defaults: at the end of the interpreter modules are emptied.
        """
        try:
            if current() == self._thread:
                known, exact = clocks_of(self._thread), own_clocks()
                # Its own figures are not rounded down to ticks, so they are never below what was read before.
                if known and exact:
                    user, system, minor, major = exact
                    known = known._replace(
                        user_ns=user, system_ns=system, minor_faults=minor, major_faults=major
                    )
                self.clocks = known
        except Exception:
            pass  # the host's thread ends here, whatever happens
