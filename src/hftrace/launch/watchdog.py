"""Looks after a running load: its time-out, and the silence of one that hangs.

The loading process has told :mod:`faulthandler` to write the stacks of all its
threads into a file of the run's directory on SIGUSR2. That works while Python
itself waits for something, and disturbs nobody: the load goes on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrace import units
from hftrace.launch.progress import JournalFollower
from hftrace.launch.run_directory import STALL, TIMEOUT, SupervisorLog
from hftrace.schema import journal
from hftrace.schema.redact import redact

DEFAULT_STALL_SECONDS = 60.0
MAX_STALLS = 10
"""So many stacks of one load are enough."""
DUMP_SECONDS = 2.0
"""How long the stacks may take to arrive."""
SETTLED_SECONDS = 0.1
"""A dump that has not grown for so long is whole."""
MAX_LOOK_SECONDS = 1.0
SIGNAL = getattr(signal, "SIGUSR2", None)
CRASH_MARKS = ("Fatal Python error:", "Windows fatal exception:")
_DEVICE_LINE = b'["device"'


class JournalActivity:
    """Says for how long the journals of a run have been silent.

    Readings of device memory come all the time, and are no events.

    Args:
        run: The run's directory.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._offsets: dict[Path, int] = {}
        self._heard = time.monotonic()

    def restart(self) -> None:
        """Counts from now on."""
        self._heard = time.monotonic()

    def silent_seconds(self) -> float:
        """Returns the time since the last event, or since the beginning."""
        for path in self._run.glob(f"{journal.JOURNAL_PREFIX}*{journal.SUFFIX}"):
            offset = self._offsets.get(path, 0)
            try:
                with open(path, "rb") as handle:
                    handle.seek(offset)
                    data = handle.read()
            except OSError:
                continue
            end = data.rfind(b"\n") + 1
            self._offsets[path] = offset + end
            if any(line and not line.startswith(_DEVICE_LINE) for line in data[:end].splitlines()):
                self._heard = time.monotonic()
        return time.monotonic() - self._heard


def catches(pid: int, number: int) -> bool:
    """Returns whether a process handles a signal, which would kill it otherwise."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        mask = int(text.partition("SigCgt:")[2].split()[0], 16)
    except (OSError, ValueError, IndexError):
        return not os.path.isdir("/proc/self")
    return bool(mask >> (number - 1) & 1)


def stacks_file(run: Path) -> tuple[int, Path] | None:
    """Returns the loading process's number, and where it writes its stacks."""
    for path in run.glob(f"{journal.STACKS_PREFIX}*.txt"):
        number = path.stem.removeprefix(journal.STACKS_PREFIX)
        if number.isdigit():
            return int(number), path
    return None


def dump_stacks(run: Path) -> str | None:
    """Asks the loading process for the stacks of all its threads.

    Returns:
        The text of faulthandler, without secrets; None where the process is
        not ready for it, or does not answer because it is stopped or stuck in the kernel.
    """
    found = stacks_file(run)
    if found is None or SIGNAL is None:
        return None
    pid, path = found
    try:
        before = path.stat().st_size
        if not catches(pid, SIGNAL):
            return None
        os.kill(pid, SIGNAL)
    except OSError:
        return None
    deadline = time.monotonic() + DUMP_SECONDS
    size, since = before, time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.01)
        now = path.stat().st_size
        if now != size:
            size, since = now, time.monotonic()
        elif size > before and time.monotonic() - since > SETTLED_SECONDS:
            break
    if size == before:
        return None
    with open(path, "rb") as handle:
        handle.seek(before)
        return redact(handle.read(size - before).decode("utf-8", "replace").strip())


def crash_stack(run: Path) -> str | None:
    """Returns what faulthandler wrote when the loading process crashed, without secrets; None without it."""
    found = stacks_file(run)
    if found is None:
        return None
    try:
        text = found[1].read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    starts = [start for mark in CRASH_MARKS if (start := text.find(mark)) >= 0]
    return redact(text[min(starts) :].strip()) if starts else None


class Watchdog:
    """Ends a load that takes too long, and says what one that is silent is doing.

    Args:
        run: The run's directory.
        timeout_seconds: Kill the load after so long; None for never.
        stall_seconds: So long without an event is a stall; 0 for never.
        log: Where stalls and the time-out are written.
        say: Gets the lines for the user.
    """

    def __init__(
        self,
        run: Path,
        *,
        timeout_seconds: float | None,
        stall_seconds: float,
        log: SupervisorLog,
        say: Callable[[str], None],
    ) -> None:
        self._run = run
        self._timeout = timeout_seconds
        self._stall = stall_seconds
        self._log = log
        self._say = say
        self._started = time.monotonic()
        self._ears = JournalActivity(run)
        self._follower = JournalFollower(run)
        self.stalls = 0
        self.timed_out = False

    def pause(self) -> float | None:
        """Returns when to look again, in seconds; None for never."""
        pauses = []
        if self._timeout is not None and not self.timed_out:
            pauses.append(max(0.01, self._started + self._timeout - time.monotonic()))
        if self._stall and self.stalls < MAX_STALLS:
            pauses.append(min(MAX_LOOK_SECONDS, max(0.05, self._stall / 10)))
        return min(pauses, default=None)

    def look(self, kill: Callable[[], None]) -> None:
        """Does what is due.

        Args:
            kill: Ends the load at once.
        """
        if self.timed_out:
            return
        if self._timeout is not None and time.monotonic() - self._started >= self._timeout:
            self.timed_out = True
            self._time_out(kill)
            return
        if not self._stall or self.stalls >= MAX_STALLS:
            return
        silent = self._ears.silent_seconds()
        if silent >= self._stall:
            self._report(silent)
            self._ears.restart()

    def _time_out(self, kill: Callable[[], None]) -> None:
        stack = dump_stacks(self._run)
        # Before the kill: whoever finds the run's directory must know who did it.
        self._log.write(TIMEOUT, {"seconds": self._timeout, "stack": stack})
        kill()

    def _phase(self) -> str:
        """Returns the phase that the load is in, from all of the journal."""
        sizes = -1
        while sizes != (sizes := self._follower.consumed()):
            self._follower.look()
        return self._follower.state.phase

    def _report(self, silent: float) -> None:
        self.stalls += 1
        now = time.monotonic_ns()
        phase = self._phase()
        stack = dump_stacks(self._run)
        stall: dict[str, Any] = {
            "time_ns": now,
            "silent_ns": round(silent * 1e9),
            "phase": phase,
            "stack": stack,
        }
        self._log.write(STALL, stall)
        head = f"hftrace: no event for {units.duration(stall['silent_ns'])} in phase {phase}"
        if stack is None:
            self._say(f"{head}; the process does not answer, so there are no stacks")
            return
        self._say(f"{head}; the stacks of all threads:")
        for line in stack.splitlines():
            self._say(line)
