"""Part of the sampler: ends a load at a limit. It imports the standard library alone."""

from __future__ import annotations

import json
import os
import signal
import time

GRACE_NS = 5_000_000_000
"""So long after its time-out a load is killed whose supervisor lives, and should have done it."""


class Killer:
    """Kills one process, and never another one that has got its number."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptor: int | None = None
        try:
            self._descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):
            pass  # not Linux 5.3 or later

    def kill(self) -> None:
        """Sends SIGKILL, which nobody can refuse."""
        try:
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
            else:
                os.kill(self._pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        except OSError:
            pass  # it has ended by itself


class Deadline:
    """Ends a process that has taken too long, where nobody else has done it.

    While the supervisor lives it does that itself, and asks for the stacks before.

    Args:
        killer: Of the process.
        time_ns: When its time is up, by the monotonic clock.
        timeout_seconds: How long it may take.
        log: The supervisor's log, which is told so.
    """

    def __init__(self, killer: Killer, time_ns: int, timeout_seconds: float | None, log: str | None) -> None:
        self._killer = killer
        self._time_ns: int | None = time_ns
        self._timeout_seconds = timeout_seconds
        self._log = log

    def look(self, supervised: bool) -> None:
        """Does what is due.

        Args:
            supervised: Whether the supervisor lives.
        """
        grace = GRACE_NS if supervised else 0
        if self._time_ns is None or time.monotonic_ns() <= self._time_ns + grace:
            return
        self._time_ns = None
        # Before the kill: whoever finds the run's directory must know who did it.
        line = json.dumps(["timeout", {"seconds": self._timeout_seconds, "stack": None}])
        if self._log is not None:
            try:
                with open(self._log, "ab") as log:
                    log.write(b"\n" + line.encode("ascii") + b"\n")
            except OSError:
                pass  # a full disk is no reason to let it go on
        self._killer.kill()
