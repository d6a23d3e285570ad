"""Records a process that runs already, from outside, until it is enough."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrace.errors import HftraceError
from hftrace.launch.attaching import remote
from hftrace.launch.attaching.connection import Connection, GoneError
from hftrace.launch.attaching.look import LATER, Standstill, beginning, stack_text, still_words
from hftrace.launch.attaching.target import Target, refusal
from hftrace.launch.ending.conclusion import build_trace
from hftrace.launch.ending.evidence import OomCounters
from hftrace.launch.interrupts import Interrupts
from hftrace.launch.kept import RunDirectory
from hftrace.launch.listening import PAUSE_SECONDS, Listener
from hftrace.launch.progress import JournalFollower
from hftrace.launch.run_directory import RUN, STALL, SupervisorLog
from hftrace.launch.sampler import Sampler
from hftrace.launch.sampling import DEFAULT_RATE_HZ, sampler_options
from hftrace.launch.tail import JournalTail
from hftrace.launch.watchdog import JournalActivity
from hftrace.schema.journal import samples_path
from hftrace.schema.trace import Trace

LOOK_SECONDS = 1.0
"""Between two looks at where the threads stand, which takes the process some 0.1 ms."""
FIRST_LOOK_SECONDS = 10.0
"""To begin, a process imports what records; who has not answered after so long is looked at from outside."""
DEFAULT_STALL_SECONDS = 5.0
"""Whoever attaches has come because something stands still: it is told sooner than ``hftrace load`` does."""
SAMPLER_SECONDS = 5.0
SILENT = "it is stopped, or something holds its interpreter's lock"


@dataclass(frozen=True)
class AttachOptions:
    """What is recorded of a process, and until when.

    Args:
        seconds: No longer than this; None for until it is enough.
        next_load: Until the first load that begins from now on has returned.
        stall_seconds: So long at one place in a load is worth a word; 0 for none.
        sample_hz: Readings of memory per second; 0 for none.
    """

    seconds: float | None = None
    next_load: bool = False
    stall_seconds: float = DEFAULT_STALL_SECONDS
    sample_hz: float = DEFAULT_RATE_HZ


def record(
    target: Target,
    options: AttachOptions,
    interrupts: Interrupts,
    *,
    run: RunDirectory,
    header: Mapping[str, Any],
    listener: Listener,
) -> Trace:
    """Records a process until Ctrl-C, until the options say that it is enough, or until it has ended.

    Args:
        target: The process.
        options: Until when.
        interrupts: A signal ends the recording, and not what belongs to it.
        run: Where it records, which whoever saves the trace has opened.
        header: Facts for the trace's header (command, argv).
        listener: Hears of the loads while they run.

    Raises:
        HftraceError: The process cannot be attached to.
    """
    witness = OomCounters.snapshot() if _shares_limits(target.pid) else None
    log = SupervisorLog(run.path)
    counted = {} if witness is None else {"counters": witness.before, "limits": witness.limits()}
    log.write(RUN, {"header": dict(header), **counted})
    with _socket(target) as path, Connection(target, path) as connection:
        answer = _started(connection, target, path, options, interrupts, run.path, listener)
        for line in beginning(answer, target.pid):
            listener.on_stall(f"hftrace: {line}")
        watch = _Watch(target, path, options, run.path, log, listener)
        stopped = gone = False
        with _sampled(target.pid, run.path, options.sample_hz):
            try:
                _until_enough(connection, watch, interrupts)
                # One that has fallen silent since the last look is not waited for as one that answers.
                answers = watch.answers and connection.where() is not None
                stopped = connection.stop(answers=answers)
            except GoneError:
                # Its end is in the journal, or it was killed, and may be seen to live a moment longer.
                gone = True
        watch.finish()
    return build_trace(run.path, log.facts, witness, running=not stopped and not gone and target.lives())


@contextlib.contextmanager
def _socket(target: Target) -> Iterator[str]:
    path = target.socket()
    if path is not None:
        yield path
    elif remote.can_reach() and not target.variables.get("HFTRACE_RUN"):
        with remote.opened(target) as path:
            yield path
    else:
        raise refusal(target)


def _started(
    connection: Connection,
    target: Target,
    socket: str,
    options: AttachOptions,
    interrupts: Interrupts,
    run: Path,
    listener: Listener,
) -> dict[str, Any]:
    """Lets the process begin to record, and returns its answer; says where it stands until there is one.

    Raises:
        HftraceError: It cannot, or has not answered by the end of the time.
    """
    began, known = time.monotonic(), ""
    look = FIRST_LOOK_SECONDS
    try:
        with interrupts.allowed():
            while True:
                left = look if options.seconds is None else began + options.seconds - time.monotonic()
                answer = connection.start(run, max(0.01, min(look, left)))
                if answer is not None:
                    return answer
                waited = time.monotonic() - began
                text = target.stacks(socket)
                waits = target.waits()
                listener.on_stall(
                    f"hftrace: process {target.pid} has not answered for {waited:.0f} s: {SILENT}"
                    + (f"; its main thread waits in {waits}" if waits else "")
                    + ("; the stacks of all threads:" if text and text != known else "")
                )
                for line in (text or "").splitlines() if text != known else ():
                    listener.on_stall(line)
                known, look = text or "", look * LATER
                if options.seconds is not None and waited >= options.seconds:
                    break
    except KeyboardInterrupt:
        pass
    waited = time.monotonic() - began
    raise HftraceError(
        f"process {target.pid} did not answer in {waited:.0f} s, so nothing was recorded: {SILENT}"
    )


class _Watch:
    """Looks at a recorded process every now and then."""

    def __init__(
        self,
        target: Target,
        socket: str,
        options: AttachOptions,
        run: Path,
        log: SupervisorLog,
        listener: Listener,
    ) -> None:
        self._target, self._socket = target, socket
        self.answers = True
        """Whether the process has answered when it was asked last."""
        self._options, self._log, self._listener = options, log, listener
        self._began = time.monotonic()
        tail = JournalTail(run, target.pid)
        self._activity = JournalActivity(tail)
        self._follower = JournalFollower(run, tail, tensors=listener.on_progress is not None)
        self._name = f"to process {target.pid}"
        self._standstill = Standstill(options.stall_seconds)
        self._looked = self._began
        self._now_ns = time.monotonic_ns()

    @property
    def pause(self) -> float:
        """Seconds until the next look."""
        return self._listener.pause_seconds if self._listener.on_progress is not None else PAUSE_SECONDS

    def is_enough(self) -> bool:
        """Looks at the journal; returns whether all is recorded that was asked for."""
        state = self._follower.poll()
        if state.first.phase == "start":
            state.first.phase, state.first.name = "attached", self._name  # it has started long ago
        if self._listener.on_progress is not None:
            self._listener.on_progress(state)
        if self._options.next_load and state.first.loads:
            return True
        seconds = self._options.seconds
        return seconds is not None and time.monotonic() - self._began >= seconds

    def look(self, connection: Connection) -> None:
        """Asks where the threads stand, if it is time to."""
        if not self._options.stall_seconds or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        known, self.answers = self.answers, False  # a Ctrl-C may come while it is waited for
        answer = connection.where()
        if answer is None or "standing" not in answer:
            if known:
                self._say_silent()
            return
        self.answers = True
        self._activity.silent_seconds()
        self._now_ns = int(answer["time_ns"])
        last = round(self._activity.last_event * 1e9)
        for still in self._standstill.look(answer["standing"], self._now_ns, last):
            self._listener.on_stall(f"hftrace: {still_words(still, self._now_ns)}")

    def _say_silent(self) -> None:
        """Says where the process stands that does not answer, as it is seen from outside."""
        text, waits = self._target.stacks(self._socket), self._target.waits()
        self._listener.on_stall(
            f"hftrace: the process does not answer: {SILENT}"
            + (f"; its main thread waits in {waits}" if waits else "")
            + ("; the stacks of all threads:" if text else "")
        )
        for line in (text or "").splitlines():
            self._listener.on_stall(line)
        now, since = time.monotonic_ns(), round(self._activity.last_event * 1e9)
        self._log.write(
            STALL,
            {
                "since_ns": since,
                "time_ns": now,
                "silent_ns": now - since,
                "phase": self._follower.state.first.phase if self._follower.is_loading else None,
                "hosts": [],
                "stack": text,
            },
        )

    def finish(self) -> None:
        """Writes down what stood still to the end."""
        if self._listener.on_progress is not None:
            self._follower.state.ending = True
            self._listener.on_progress(self._follower.poll())
        still = self._standstill.longest(self._now_ns)
        if still is not None:
            phase = self._follower.state.first.phase
            self._log.write(
                STALL,
                {
                    "since_ns": still.since_ns,
                    "time_ns": self._now_ns,
                    "silent_ns": self._now_ns - still.since_ns,
                    "phase": phase if self._follower.is_loading else None,
                    "hosts": self._follower.waiting_for(),
                    "stack": stack_text(self._standstill.all()),
                },
            )


def _until_enough(connection: Connection, watch: _Watch, interrupts: Interrupts) -> None:
    try:
        with interrupts.allowed():
            while not watch.is_enough():
                connection.wait(watch.pause)
                watch.look(connection)
    except KeyboardInterrupt:
        return  # that is how one says that it is enough


@contextlib.contextmanager
def _sampled(pid: int, run: Path, rate_hz: float) -> Iterator[None]:
    """Reads a process's memory meanwhile, on a thread: a sampler of its own would outlive us by weeks."""
    reads, writes = os.pipe()
    thread: threading.Thread | None = None
    try:
        if rate_hz:
            with contextlib.suppress(OSError, ImportError):
                options = sampler_options(pid, rate_hz)
                sampler = Sampler(pid, os.fspath(samples_path(run, pid)), options, reads)
                thread = threading.Thread(target=sampler.run, name="hftrace-sampler", daemon=True)
                thread.start()
        yield
    finally:
        os.write(writes, b"q")
        if thread is not None:
            thread.join(timeout=SAMPLER_SECONDS)
        os.close(writes)
        if thread is None or not thread.is_alive():
            os.close(reads)


def _shares_limits(pid: int) -> bool:
    """Returns whether a process is in this one's control group, and so has its limits and counters."""
    try:
        return Path(f"/proc/{pid}/cgroup").read_bytes() == Path("/proc/self/cgroup").read_bytes()
    except OSError:
        return False
