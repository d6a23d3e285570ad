"""Looks after a running load: its time-out, and the silence of one that hangs.

The loading process has told :mod:`faulthandler` to write the stacks of all its
threads into a file of the run's directory on a signal that no program has a use
for. That works while Python itself waits for something, and disturbs nobody: the load goes on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrace import units
from hftrace.launch.progress import JournalFollower
from hftrace.launch.run_directory import STALL, TIMEOUT, SupervisorLog
from hftrace.launch.tail import JournalTail
from hftrace.record.child.stacks import SIGNAL
from hftrace.schema import codec, journal
from hftrace.schema.frames import host_frames
from hftrace.schema.redact import masked, redact

DEFAULT_STALL_SECONDS = 60.0
MAX_STALLS = 10
"""So many stacks of one load are enough."""
LATER_LOOKS = 2
"""A silence that goes on is looked at again when it is so many times as long as the last time."""
DUMP_SECONDS = 2.0
"""How long the stacks may take to arrive."""
SETTLED_SECONDS = 0.1
"""A dump that has not grown for so long is whole."""
MAX_POLL_SECONDS = 1.0
CRASH_MARKS = ("Fatal Python error:", "Windows fatal exception:")


class JournalActivity:
    """Says for how long the journals of a run have been silent.

    Readings of device memory come all the time, and are no events.

    Args:
        tail: Of these journals.
    """

    def __init__(self, tail: JournalTail) -> None:
        self._tail = tail
        self.last_event = time.monotonic()
        """When the last event was seen."""
        tail.listen(self._add)

    def silent_seconds(self) -> float:
        """Returns the time since the last event, or since the beginning."""
        self._tail.poll()
        return time.monotonic() - self.last_event

    def _add(self, raw: bytes) -> None:
        if raw and codec.kind_of(raw) != journal.DEVICE:
            self.last_event = time.monotonic()


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
    return dump_of(*found) if found is not None else None


def dump_of(pid: int, path: Path) -> str | None:
    """The same of any process that was told to write them there."""
    if SIGNAL is None:
        return None
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
    return _read_stacks(path, before)


def crash_stack(run: Path) -> str | None:
    """Returns what faulthandler wrote when the loading process crashed, without secrets; None without it."""
    found = stacks_file(run)
    if found is None:
        return None
    try:
        text = _read_stacks(found[1], 0)
    except OSError:
        return None
    starts = [start for mark in CRASH_MARKS if (start := text.find(mark)) >= 0]
    return text[min(starts) :] if starts else None


def _read_stacks(path: Path, start: int) -> str:
    """Returns what faulthandler has written from here on, without secrets: in the file there are none either.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as handle:
        handle.seek(start)
        data = handle.read()
    text = redact(host_frames(data.decode("utf-8", "replace")).strip())
    clean = masked(data)
    if clean != data:
        # In place and as long as it was: the process may be adding to it.
        with contextlib.suppress(OSError), open(path, "r+b") as handle:
            handle.seek(start)
            handle.write(clean)
    return text


class Watchdog:
    """Ends a load that takes too long, and says what one that is silent is doing.

    Args:
        run: The run's directory.
        timeout_seconds: Kill the load after so long; None for never.
        stall_seconds: So long without an event is a stall; 0 for never.
        tail: Of the run's journals.
        follower: Knows the phase that the load is in.
        log: Where stalls and the time-out are written.
        report: Gets the lines for the user.
        loads_alone: Whether silence means something inside of a load alone: a program may wait for its users.
    """

    def __init__(
        self,
        run: Path,
        *,
        timeout_seconds: float | None,
        stall_seconds: float,
        tail: JournalTail,
        follower: JournalFollower,
        log: SupervisorLog,
        report: Callable[[str], None],
        loads_alone: bool = False,
    ) -> None:
        self._run = run
        self._loads_alone = loads_alone
        self._timeout = timeout_seconds
        self._stall = stall_seconds
        self._log = log
        self._report = report
        self._started = time.monotonic()
        self._activity = JournalActivity(tail)
        self._tail, self._follower = tail, follower
        self._silence: _Silence | None = None
        self.looks = 0
        """How often stacks were asked for."""
        self.timed_out = False

    def pause(self) -> float | None:
        """Returns when to poll again, in seconds; None for never."""
        pauses = []
        if self._timeout is not None and not self.timed_out:
            pauses.append(max(0.01, self._started + self._timeout - time.monotonic()))
        if self._stall and (self.looks < MAX_STALLS or self._silence is not None):
            pauses.append(min(MAX_POLL_SECONDS, max(0.05, self._stall / 10)))
        return min(pauses, default=None)

    def poll(self, kill: Callable[[], None]) -> None:
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
        if not self._stall:
            return
        silent = self._activity.silent_seconds()
        if self._loads_alone and not self._follower.is_loading:
            self._activity.last_event = time.monotonic()
            silent = 0.0
        silence = self._silence
        if silence is not None and self._activity.last_event > silence.since:
            self._end(silence, self._activity.last_event)
            silence = None
        due = self._stall if silence is None else LATER_LOOKS * silence.looked_after
        if silent >= due and self.looks < MAX_STALLS:
            self._look(silent)

    def finish(self) -> None:
        """Writes down how long the last silence was: the load has ended."""
        if self._silence is None:
            return
        self._tail.catch_up()
        since = self._silence.since
        over = self._activity.last_event if self._activity.last_event > since else time.monotonic()
        self._end(self._silence, over)

    def _time_out(self, kill: Callable[[], None]) -> None:
        stack = dump_stacks(self._run)
        # Before the kill: whoever finds the run's directory must know who did it.
        self._log.write(TIMEOUT, {"seconds": self._timeout, "stack": stack})
        kill()

    def _look(self, silent: float) -> None:
        """Says that the load is silent, and what its threads are doing; once more only what is new."""
        self.looks += 1
        self._tail.catch_up()
        phase, hosts = self._follower.state.first.phase, self._follower.waiting_for()
        stack = dump_stacks(self._run)
        head = f"hftrace: no event for {units.duration(round(silent * 1e9))} in phase {phase}"
        if hosts:
            head += f", waiting for {' and '.join(hosts)}"
        silence = self._silence
        if silence is None:
            facts = {"phase": phase, "hosts": hosts, "stack": stack}
            silence = self._silence = _Silence(self._activity.last_event, silent, facts)
            known = None
        else:
            known = silence.facts.get("last_stack") or silence.facts["stack"]
            silence.looked_after = silent
            if stack != known:
                silence.facts["last_stack"] = stack
        self._write(silence, silence.since + silent)
        if stack is None:
            self._report(f"{head}; the process does not answer, so there are no stacks")
        elif stack == known:
            self._report(f"{head}; the stacks are the same")
        else:
            self._report(f"{head}; the stacks of all threads:")
            for line in stack.splitlines():
                self._report(line)

    def _end(self, silence: _Silence, over: float) -> None:
        self._silence = None
        self._write(silence, over)

    def _write(self, silence: _Silence, until: float) -> None:
        """Writes the line of a silence, which takes the place of those before it."""
        self._log.write(
            STALL,
            {
                "since_ns": round(silence.since * 1e9),
                "time_ns": round(until * 1e9),
                "silent_ns": round((until - silence.since) * 1e9),
                **silence.facts,
            },
        )


@dataclass
class _Silence:
    """A time without any event that was long enough to be looked at; it may go on."""

    since: float
    looked_after: float
    """How long it was when it was last looked at, in seconds."""
    facts: dict[str, Any]
