"""Waits for the end of a loading process, shows how far it is, and ends it when it is to end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable

from hftrace.launch.interrupts import Interrupts
from hftrace.launch.progress import JournalFollower, LiveState
from hftrace.launch.watchdog import Watchdog

INTERRUPT_GRACE_SECONDS = 10.0
"""How long an interrupted load may take to end before it is killed."""
FORWARD_SECONDS = 1.0
"""After this long it is sent the signal again, in case only this process got it."""
POLL_SECONDS = 0.1


def wait_for_exit(
    child: subprocess.Popen[bytes],
    interrupts: Interrupts,
    follower: JournalFollower,
    on_progress: Callable[[LiveState], None] | None,
    watchdog: Watchdog,
) -> bool:
    """Waits for the child; returns whether the user, or a signal, interrupted it."""
    interrupted, forwarded = False, False
    since = 0.0
    with _ExitWaiter(child) as end:
        while True:
            try:
                with interrupts.allowed():
                    if interrupted:
                        waited = time.monotonic() - since
                        if waited > INTERRUPT_GRACE_SECONDS:
                            child.kill()
                        elif (waited > FORWARD_SECONDS or interrupts.first != "SIGINT") and not forwarded:
                            forwarded = True
                            child.send_signal(signal.SIGINT)
                    live = interrupted or on_progress is not None
                    if end.wait(POLL_SECONDS if live else watchdog.pause()):
                        return interrupted
                    if on_progress is not None:
                        on_progress(follower.poll())
                    if not interrupted:
                        watchdog.poll(child.kill)
            except KeyboardInterrupt:
                # A terminal has sent the same signal to the child, which ends by itself; a second
                # one, or patience at an end, kills it.
                if interrupted:
                    child.kill()
                else:
                    interrupted, since = True, time.monotonic()


class _ExitWaiter:
    """Waits for the end of a process for a while, and returns at once when it comes.

    ``Popen.wait`` with a time-out asks every 50 ms, which makes each load that
    much longer and takes the processor from it.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._descriptor: int | None = None
        with contextlib.suppress(AttributeError, OSError):  # not Linux 5.3 or later
            self._descriptor = os.pidfd_open(child.pid)

    def __enter__(self) -> _ExitWaiter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def wait(self, seconds: float | None) -> bool:
        """Returns whether the process has ended within so long; None waits for its end."""
        if self._descriptor is not None and seconds is not None:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            if not poll.poll(seconds * 1000):
                return False
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True
