"""Looks after what looks after a load: a sampler may be killed, stopped, or never begin.

A limit that was asked for holds all the same. A thread of the supervisor takes
the sampler's place, with the same code and into the same file; where that
cannot be either, a load with a memory limit is ended. Both are said in the log
of the run, and so in the trace.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hftrace.errors import HftraceError
from hftrace.launch.kept import RunDirectory
from hftrace.launch.run_directory import SAMPLER, UNWATCHED, SupervisorLog
from hftrace.launch.sampler import Options, Sampler, pause_of
from hftrace.launch.sampling import Problem, SamplerProcess, ended
from hftrace.schema.journal import samples_path
from hftrace.system.processes import start_ticks

LOOK_SECONDS = 0.25
SILENT_SECONDS = 2.0
"""A sampler that has not moved for so long, and for three of its own pauses, hangs."""
END_SECONDS = 1.0
"""How long a process may take to be gone after its memory is."""


class Guard:
    """Starts the sampler of a load, and takes its place where it is gone.

    Args:
        pid: The loading process.
        run: Where it records; what lies there is held open.
        options: What the sampler is to do; None where nothing is to be sampled or limited.
        log: Is told what became of the sampler.
        kill: Ends the load.

    Raises:
        HftraceError: A limit was asked for, and nobody can be had who would keep it.
    """

    def __init__(
        self,
        pid: int,
        run: RunDirectory,
        options: Options | None,
        log: SupervisorLog,
        kill: Callable[[], None],
    ) -> None:
        self._pid = pid
        self._run = run
        self._options = options
        self._log = log
        self._kill = kill
        self._stopping = False
        self._problem: Problem | None = None
        self._process: SamplerProcess | None = None
        if options is not None:
            try:
                self._process = SamplerProcess(pid, run.path, options)
            except OSError as error:
                self._problem = Problem("not-started", reason=error.strerror or str(error))
        self._told, self._tell = os.pipe()
        self._thread = threading.Thread(target=self._guard, name="hftrace-guard", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            if options is not None and options.limit_bytes is not None and self._process is None:
                self._close()
                raise HftraceError(
                    "the memory limit cannot be watched, because no second process can be started "
                    f"({self._problem.reason if self._problem else error}): end other programs, or load "
                    "without --memory-limit"
                ) from None

    def stop(self) -> None:
        """Ends the sampler, or what has taken its place, and waits for the last line; once is enough."""
        if self._stopping:
            return
        self._stopping = True
        os.write(self._tell, b"q")
        if self._thread.ident is not None:
            self._thread.join(timeout=END_SECONDS + 5)
        problem = self._process.stop() if self._process is not None else None
        # By itself it has ended because the load has.
        if problem is not None and problem.exit_code is None and not self._log.facts.samplers:
            self._say(problem, None, replaced=False)
        if not self._thread.is_alive():
            self._close()

    def _close(self) -> None:
        os.close(self._told)
        os.close(self._tell)

    def _guard(self) -> None:
        try:
            problem = self._wait_for_problem()
            if problem is not None:
                self._take_place(problem)
        except Exception as error:
            # A bug of ours is no reason to let a limit go either.
            self._let_go(f"{type(error).__name__}: {error}")

    def _wait(self, seconds: float) -> bool:
        """Waits; returns whether it has been told that the load has ended."""
        readable, _, _ = select.select([self._told], [], [], seconds)
        return bool(readable)

    def _wait_for_problem(self) -> Problem | None:
        """Returns what became of the sampler; None when the load has ended before anything did."""
        pulse = _Pulse(self._process.process.pid, self._options) if self._process and self._options else None
        with _EndOf(self._process) as end:
            while self._problem is None:
                if end.wait(self._told, LOOK_SECONDS):
                    return None
                self._run.hold()
                if self._process is None or pulse is None:
                    continue
                code = self._process.process.poll()
                if code is not None:
                    # It also ends when the process does, of which it may hear before this one.
                    return ended(code) if code or self._lives_on() else None
                if pulse.is_silent(self._over_limit()):
                    self._process.process.kill()
                    return Problem("silent")
        return self._problem

    def _over_limit(self) -> bool:
        limit = self._options.limit_bytes if self._options is not None else None
        if limit is None:
            return False
        try:
            _, resident, shared, _ = Path(f"/proc/{self._pid}/statm").read_bytes().split(maxsplit=3)
        except (OSError, ValueError):
            return False
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") > limit

    def _take_place(self, problem: Problem) -> None:
        """Samples, and keeps the limits, until the load has ended."""
        assert self._options is not None
        now, path = time.monotonic_ns(), os.fspath(samples_path(self._run.path, self._pid))
        reason = "its memory cannot be read"
        try:
            sampler = Sampler(self._pid, path, self._options, self._told)
        except (OSError, ImportError) as error:
            sampler, reason = None, str(error)
        if sampler is None or not sampler.sees:
            if self._lives_on():
                self._say(problem, now, replaced=False)
                self._let_go(reason)
            return
        self._say(problem, now, replaced=True)
        sampler.run()
        if not self._stopping:
            self._let_go(f"{reason} any more")

    def _say(self, problem: Problem, time_ns: int | None, *, replaced: bool) -> None:
        by = "supervisor" if replaced else None
        self._log.write(SAMPLER, {**problem.facts(), "time_ns": time_ns, "replaced_by": by})

    def _let_go(self, reason: str) -> None:
        """Ends a load that nobody can hold to its limit any more; not one that is about to end."""
        if self._options is None or self._options.limit_bytes is None or not self._lives_on():
            return
        # Before the kill: whoever finds the run's directory must know who did it.
        self._log.write(UNWATCHED, {"limit_bytes": self._options.limit_bytes, "reason": reason})
        self._kill()

    def _lives_on(self) -> bool:
        """Returns whether the process is still there after a while."""
        until = time.monotonic() + END_SECONDS
        while start_ticks(self._pid) is not None:
            if time.monotonic() > until:
                return True
            if self._wait(0.01):
                return False
        return False


class _EndOf:
    """Waits for the end of a sampler, where it can be seen at once, or for a word."""

    def __init__(self, sampler: SamplerProcess | None) -> None:
        self._descriptor: int | None = None
        if sampler is not None:
            with contextlib.suppress(AttributeError, OSError):  # not Linux 5.3 or later
                self._descriptor = os.pidfd_open(sampler.process.pid)

    def __enter__(self) -> _EndOf:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def wait(self, told: int, seconds: float) -> bool:
        """Returns whether there was a word on ``told``; also returns when the sampler has ended."""
        ends = [self._descriptor] if self._descriptor is not None else []
        readable, _, _ = select.select([told, *ends], [], [], seconds)
        return told in readable


class _Pulse:
    """Says whether a process stands still: one that waits and goes on gives up its processor each time."""

    def __init__(self, pid: int, options: Options) -> None:
        self._pid = pid
        self._allowed = max(SILENT_SECONDS, 3 * (pause_of(options) or 0.0))
        self._count: int | None = None
        self._silent = 0.0
        self._looked = time.monotonic()

    def is_silent(self, over_limit: bool) -> bool:
        """Looks once more.

        Args:
            over_limit: Whether the load should have been killed by now.
        """
        now = time.monotonic()
        # Where all stood still, this process as well, the sampler is not to blame for it.
        passed, self._looked = min(now - self._looked, 2 * LOOK_SECONDS), now
        count = self._switches()
        if count is None or count != self._count:
            self._count, self._silent = count, 0.0
            return False
        self._silent += passed
        return over_limit or self._silent > self._allowed

    def _switches(self) -> int | None:
        try:
            text = Path(f"/proc/{self._pid}/status").read_bytes()
            return int(text.partition(b"\nvoluntary_ctxt_switches:")[2].split()[0])
        except (OSError, ValueError, IndexError):
            return None
