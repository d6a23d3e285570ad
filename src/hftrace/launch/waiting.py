"""Waits for the end of a process, shows how far a load is, and ends it when it is to end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import Protocol

from hftrace.analysis.live import LiveState
from hftrace.launch.interrupts import Interrupts
from hftrace.launch.listening import Listener
from hftrace.launch.watchdog import Watchdog

INTERRUPT_GRACE_SECONDS = 10.0
"""How long an interrupted load may take to end before it is killed."""
FORWARD_SECONDS = 1.0
"""After this long it is sent the signal again, in case only this process got it."""
POLL_SECONDS = 0.1


class Follower(Protocol):
    """Knows what a load is doing."""

    def poll(self) -> LiveState:
        """Brings the state up to date."""


def wait_for_exit(
    child: subprocess.Popen[bytes],
    interrupts: Interrupts,
    follower: Follower,
    listener: Listener,
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
                    pause = watchdog.pause()
                    if listener.on_progress is not None:
                        pause = min(listener.pause_seconds, pause or listener.pause_seconds)
                    if end.wait(POLL_SECONDS if interrupted else pause):
                        return interrupted
                    if listener.on_progress is not None:
                        listener.on_progress(follower.poll())
                    if not interrupted:
                        watchdog.poll(child.kill)
            except KeyboardInterrupt:
                # A terminal has sent the same signal to the child, which ends by itself; a second
                # one, or patience at an end, kills it.
                if interrupted:
                    child.kill()
                else:
                    interrupted, since = True, time.monotonic()


PASSED_ON = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
"""What somebody who wants to tell the program something sends to the command that he has started."""
_SENT_BY_A_PROCESS = (0, -1, -6)
"""``si_code`` of ``kill``, ``sigqueue`` and ``tkill`` (``SI_USER, SI_QUEUE, SI_TKILL``)."""


class ProgramSignals:
    """Holds back the signals that are for the program, from now on, in this thread and those that it starts.

    The program itself is to have been started before: it would inherit that.
    """

    def __init__(self) -> None:
        self._awaited = (*PASSED_ON, signal.SIGCHLD)
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._awaited)

    def pass_on(self, child: subprocess.Popen[bytes], seconds: float | None) -> None:
        """Waits for a signal, and sends it to the program; also returns when the program may have ended.

        What comes from the terminal (Ctrl-C, its end) the program has got by itself.

        Args:
            child: The program.
            seconds: Wait no longer; None for as long as it takes.
        """
        if seconds is None:
            found: signal.struct_siginfo | None = signal.sigwaitinfo(self._awaited)
        else:
            found = signal.sigtimedwait(self._awaited, seconds)
        if found is None or found.si_signo == signal.SIGCHLD:
            return
        if found.si_code in _SENT_BY_A_PROCESS:
            with contextlib.suppress(OSError):  # it has just ended
                child.send_signal(found.si_signo)

    def end(self) -> None:
        """Lets what comes from now on reach this process; what came at the end was for the program."""
        while signal.sigtimedwait(self._awaited, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def wait_for_program(child: subprocess.Popen[bytes], signals: ProgramSignals, watchdog: Watchdog) -> None:
    """Waits for the end of the user's program: a limit alone ends it from here."""
    try:
        with _ExitWaiter(child) as end:
            while not end.wait(0):
                signals.pass_on(child, watchdog.pause())
                watchdog.poll(child.kill)
    finally:
        signals.end()


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
