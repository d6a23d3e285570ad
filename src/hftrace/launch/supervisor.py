"""Runs a load, or a program, in a fresh process and makes its trace, however the process ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hftrace.analysis.live import LastTime
from hftrace.errors import EXIT_THRESHOLD, HftraceError, SignalInterrupt, TraceError, UsageError
from hftrace.launch.child import load_command, request_facts, write_request
from hftrace.launch.earlier import asked_digest, last_time
from hftrace.launch.ending.conclusion import build_trace, signal_name
from hftrace.launch.ending.evidence import OomCounters
from hftrace.launch.guard import Guard
from hftrace.launch.interrupts import Interrupts
from hftrace.launch.kept import RunDirectory, has_journal
from hftrace.launch.listening import NOBODY, Listener
from hftrace.launch.live_ranks import RanksFollower, in_a_job, is_first, leave_note
from hftrace.launch.preparation import prepare
from hftrace.launch.progress import JournalFollower, limit_of
from hftrace.launch.request import LoadRequest, WatchOptions
from hftrace.launch.run_directory import CHILD, END, RUN, RunFacts, SupervisorLog, read_log
from hftrace.launch.sampler import Options
from hftrace.launch.sampling import sampler_options
from hftrace.launch.tail import JournalTail
from hftrace.launch.waiting import ProgramSignals, wait_for_exit, wait_for_program
from hftrace.launch.watchdog import Watchdog
from hftrace.record.child.load import PROBLEM_FILE
from hftrace.replay.samples import read_samples
from hftrace.schema.journal import SUPERVISOR_FILE
from hftrace.schema.redact import redact
from hftrace.schema.trace import Trace
from hftrace.system.processes import start_ticks
from hftrace.units import byte_count

LAST_WORDS_SECONDS = 5
MIN_FREE_BYTES = 1 << 16
"""A disk with less is full: a journal begins with more."""


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        trace: What happened.
        exit_code: Of the process; negative for a signal.
        pid: Its number.
    """

    trace: Trace
    exit_code: int
    pid: int


@dataclass(frozen=True)
class Job:
    """A process that is to be run and watched.

    Args:
        command: Its command line.
        environment: All of its variables.
        python: Its interpreter, as the user has named it.
        request: What was asked for, as a trace says it.
        watch: How it is watched.
        is_program: Whether it is the user's own program, whose streams and signals are its own.
        last_time: Finds what is known of the same load from before.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    python: str
    request: Mapping[str, Any]
    watch: WatchOptions
    is_program: bool = False
    last_time: Callable[[], LastTime | None] = lambda: None


def run_load(
    request: LoadRequest,
    interrupts: Interrupts,
    *,
    run: RunDirectory,
    header: Mapping[str, Any],
    listener: Listener = NOBODY,
) -> RunResult:
    """Loads in a child process and returns the trace.

    Args:
        request: What to load.
        interrupts: Hold signals back while the load is started and its trace is
            made; one that arrives then is pending when this returns.
        run: Where the load records, which whoever saves the trace has opened.
        header: Facts for the trace's header (command, argv).
        listener: Hears of the load while it runs, and gets what the child prints.

    Raises:
        UsageError: The interpreter cannot be started.
        HftraceError: The child left no journal.
        KeyboardInterrupt: The load was interrupted before it had recorded
            anything, or somebody did not want to wait for its trace.
    """
    try:
        environment = write_request(run.path, request)
    except OSError as error:
        raise UsageError(f"cannot write to {run.path.parent}: {error.strerror or error}") from None
    cache = None
    if request.cache:
        with interrupts.allowed():  # a large checkpoint takes minutes to read, and nothing is lost yet
            cache = prepare(request.load.model, request.load.keywords, request.cache)
    command = load_command(run.path, request)
    # Of ranks each has its own trace until the last one has joined them.
    predicted = listener.predicts and not in_a_job()
    job = Job(
        command,
        environment,
        request.python,
        request_facts(request, cache),
        request.watch,
        last_time=(lambda: last_time(request, run.path.parent)) if predicted else lambda: None,
    )
    return _watched(job, interrupts, {**header, "asked_digest": asked_digest(request)}, run, listener)


def run_program(
    job: Job, interrupts: Interrupts, *, run: RunDirectory, header: Mapping[str, Any]
) -> RunResult:
    """Runs the user's program as a child process and returns the trace of all that it has loaded.

    Args:
        job: The program.
        interrupts: See :func:`run_load`; while the program runs, signals are the program's.
        run: Where it records, which whoever saves the trace has opened.
        header: Facts for the trace's header (command, argv).

    Raises:
        UsageError: The interpreter cannot be started.
        HftraceError: The program has recorded nothing.
        KeyboardInterrupt: Somebody did not want to wait for the trace.
    """
    return _watched(job, interrupts, header, run, NOBODY)


def _watched(
    job: Job,
    interrupts: Interrupts,
    header: Mapping[str, Any],
    run: RunDirectory,
    listener: Listener,
) -> RunResult:
    try:
        return _run(job, interrupts, header, run, listener)
    except HftraceError:
        raise
    except Exception as error:
        if not has_journal(run.path):
            raise
        reason = f"{type(error).__name__}: {error}"
        what = "program" if job.is_program else "load"
        raise HftraceError(f"no trace could be made of what this {what} has recorded ({reason})") from error


def _run(
    job: Job,
    interrupts: Interrupts,
    header: Mapping[str, Any],
    directory: RunDirectory,
    listener: Listener,
) -> RunResult:
    run, watch = directory.path, job.watch
    witness = OomCounters.snapshot()
    log = SupervisorLog(run)
    log.write(
        RUN,
        {
            "header": dict(header),
            # Said here too: a child that is killed while it imports has not said it yet.
            "request": dict(job.request),
            "counters": witness.before,
            "group": witness.group_facts(),
            "limits": {**witness.limits(), "memory_limit_bytes": watch.memory_limit_bytes},
        },
    )
    started = time.monotonic_ns()
    with contextlib.suppress(OSError):
        leave_note(run)
    child = _started(job)
    log.write(CHILD, {"pid": child.pid, "start_ns": started, "start_ticks": start_ticks(child.pid)})
    try:
        signals = ProgramSignals() if job.is_program else None
        guard = Guard(child.pid, directory, _sampled(child.pid, run, watch, started), log, child.kill)
        reader = None
        if child.stdout is not None:
            reader = threading.Thread(target=_forward, args=(child.stdout, listener.on_output), daemon=True)
            reader.start()
        # A program's own children have journals of their own, with numbers of their own.
        tail = JournalTail(run, child.pid if job.is_program else None)
        follower = JournalFollower(run, tail, tensors=listener.on_progress is not None)
        shown = RanksFollower(follower, run) if in_a_job() and is_first() else follower
        follower.state.limit = limit_of(watch.memory_limit_bytes, witness.limits())
        watchdog = Watchdog(
            run,
            timeout_seconds=watch.timeout_seconds,
            stall_seconds=watch.stall_seconds,
            tail=tail,
            follower=follower,
            log=log,
            report=listener.on_stall,
            loads_alone=job.is_program,
        )
        # The load is under way: this takes none of its time but a share of one processor for a moment.
        with contextlib.suppress(Exception):
            follower.state.last_time = job.last_time()
        if signals is None:
            interrupted = wait_for_exit(child, interrupts, shown, listener, watchdog)
        else:
            interrupted = False
            wait_for_program(child, signals, watchdog)
        watchdog.finish()
    except BaseException:
        child.kill()
        child.wait()
        raise
    ended = time.monotonic_ns()
    if listener.on_progress is not None:
        follower.state.ending = True
        listener.on_progress(shown.poll())
    # All that it wrote is in the pipe; one that it has left behind may hold the other end for long.
    if reader is not None:
        reader.join(timeout=LAST_WORDS_SECONDS)
    guard.stop()
    if directory.restore():
        run = directory.path
        log.restore(run)
    code = child.returncode
    by = interrupts.first if interrupted and interrupts.first != "SIGINT" else None
    log.write(END, {"exit_code": code, "interrupted": interrupted, "signal": by, "end_ns": ended})
    facts = log.facts
    # The sampler keeps the time where this process does not come to it.
    facts.timeout = facts.timeout or read_log(run).timeout
    try:
        trace = build_trace(run, facts, witness)
    except TraceError:
        if has_journal(run):
            raise
        if interrupted:
            raise SignalInterrupt(interrupts.first or "SIGINT") from None
        stopped = _stopped_at_once(run, facts, watch)
        raise stopped or _nothing_recorded(job, run, code) from None
    return RunResult(trace, code, child.pid)


def _started(job: Job) -> subprocess.Popen[bytes]:
    # Of a load results are ours alone to print on stdout; what a program inherits is its own.
    streams: dict[str, Any] = (
        {"close_fds": False}
        if job.is_program
        else {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    )
    try:
        return subprocess.Popen(list(job.command), env=dict(job.environment), **streams)
    except OSError as error:
        raise UsageError(f"cannot start {job.python}: {error.strerror or error}") from None


def _sampled(pid: int, run: Path, watch: WatchOptions, started_ns: int) -> Options | None:
    """Returns what the sampler is to do; None where nothing is to be sampled and nothing is limited."""
    if not watch.sample_hz and watch.memory_limit_bytes is None and watch.timeout_seconds is None:
        return None
    options = sampler_options(pid, watch.sample_hz, watch.memory_limit_bytes)
    if watch.timeout_seconds is not None:
        options.deadline_ns = started_ns + round(watch.timeout_seconds * 1e9)
        options.timeout_seconds = watch.timeout_seconds
        options.log = os.fspath(run / SUPERVISOR_FILE)
    return options


def _stopped_at_once(run: Path, facts: RunFacts, watch: WatchOptions) -> HftraceError | None:
    """Says which limit ended a child before there was anything to make a trace of; None where none did."""
    killed = read_samples(run, [])[1].get("limit")
    if killed is not None:
        asked, held = (byte_count(killed[name]) for name in ("limit_bytes", "rss_anon_bytes"))
        how = f"--memory-limit {asked} reached: {held} of anonymous memory"
    elif facts.timeout is not None:
        how = f"--timeout {watch.timeout_seconds:g} s reached"
    else:
        return None
    return HftraceError(
        f"{how}, before the process could record anything, so there is no trace: Python alone takes more",
        EXIT_THRESHOLD,
    )


def _nothing_recorded(job: Job, run: Path, code: int) -> HftraceError:
    """Says why a child left no journal: what it wrote itself, else how it ended."""
    try:
        problem = (run / PROBLEM_FILE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        problem = ""
    if not problem and shutil.disk_usage(run).free < MIN_FREE_BYTES:
        return HftraceError(
            f"nothing could be recorded in {run.parent}, which is full: let -o name a place with more room"
        )
    if problem:
        return UsageError(f"{job.python} cannot run hftrace: {problem}")
    how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
    why = "does it run Python with -I, -E or -S?" if job.is_program else "is it a Python interpreter?"
    return HftraceError(f"{job.python} {how} before it could record anything: {why}")


def _forward(stream: IO[bytes], on_output: Callable[[str], None]) -> None:
    with stream:
        for raw in stream:
            # The client's own warnings name URLs with their signatures.
            on_output(redact(raw.decode("utf-8", "replace").rstrip("\n")))


def working_directory(output: Path | None) -> Path:
    """Returns where the journal of a run lives: beside its trace, or in a temporary place."""
    return output.parent if output is not None else Path(tempfile.gettempdir())
