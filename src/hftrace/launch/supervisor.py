"""Runs one load in a fresh process and makes its trace, however the process ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hftrace.errors import HftraceError, TraceError, UsageError
from hftrace.launch.ending.conclusion import build_trace, signal_name
from hftrace.launch.ending.evidence import OomCounters, start_ticks
from hftrace.launch.preparation import prepare
from hftrace.launch.progress import JournalFollower, LiveState
from hftrace.launch.run_directory import CHILD, END, RUN, SupervisorLog, read_log
from hftrace.launch.sampling import DEFAULT_RATE_HZ, SamplerProcess
from hftrace.launch.tail import JournalTail
from hftrace.launch.watchdog import DEFAULT_STALL_SECONDS, Watchdog
from hftrace.record.child.load import PROBLEM_FILE, REQUEST_FILE, SECRETS_VARIABLE
from hftrace.schema.journal import JOURNAL_PREFIX
from hftrace.schema.redact import redact, redact_value, split_secrets
from hftrace.schema.trace import Trace

BOOTSTRAP = Path(__file__).parent.parent / "record" / "child" / "bootstrap.py"
INTERRUPT_GRACE_SECONDS = 10.0
"""How long an interrupted load may take to end before it is killed."""
FORWARD_SECONDS = 1.0
"""After this long it is sent the signal again, in case only this process got it."""
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class LoadRequest:
    """What to load, and how.

    Args:
        model: A directory or a Hub id.
        asked: What the user called it, where that is something else (``synth:NAME``).
        keywords: Keywords of ``from_pretrained`` as JSON values.
        class_name: The class to load with; None finds it from the config.
        task: A task instead of a class.
        python: The interpreter of the loading process.
        environment: Variables that are set for it, beside those of this process.
        sample_hz: Readings of the process's memory per second; 0 for none.
        quiet_bars: Whether to switch transformers' progress bars off.
        cache: ``cold`` or ``warm`` to have the weight files out of, or in, the page
            cache before the load; None leaves it as it is.
        touch: Whether to read every page of the weights once the load has returned.
        forward: Whether to do one forward pass after that.
        inputs: Its keywords as JSON values; None builds them from the config.
        release: Whether to let go of the model at the end, and measure what stays.
        memory_limit_bytes: Kill the load when its anonymous memory is larger.
        timeout_seconds: Kill the load when it takes longer, with all that follows it.
        stall_seconds: After so long without an event, say what all threads are doing; 0 for never.
    """

    model: str
    asked: str | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    class_name: str | None = None
    task: str | None = None
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    sample_hz: float = DEFAULT_RATE_HZ
    quiet_bars: bool = False
    cache: str | None = None
    touch: bool = False
    forward: bool = False
    inputs: Mapping[str, Any] | None = None
    release: bool = False
    memory_limit_bytes: int | None = None
    timeout_seconds: float | None = None
    stall_seconds: float = DEFAULT_STALL_SECONDS


@dataclass(frozen=True)
class LoadResult:
    """A finished run.

    Args:
        trace: What happened.
        exit_code: Of the loading process; negative for a signal.
    """

    trace: Trace
    exit_code: int


def run_load(
    request: LoadRequest,
    *,
    header: Mapping[str, Any],
    directory: Path,
    on_progress: Callable[[LiveState], None] | None = None,
    on_output: Callable[[str], None] | None = None,
    on_stall: Callable[[str], None] | None = None,
) -> LoadResult:
    """Loads in a child process and returns the trace.

    Args:
        request: What to load.
        header: Facts for the trace's header (command, argv).
        directory: Where the journal may live while the load runs; a folder
            is made in it and removed once the trace has been built.
        on_progress: Called some ten times a second.
        on_output: Gets each line that the child prints; None lets the child
            print to this process's stderr itself.
        on_stall: Gets each line of what is said about a load that is silent;
            None prints them on stderr.

    Raises:
        UsageError: The interpreter cannot be started.
        HftraceError: The child left no journal.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        run = Path(tempfile.mkdtemp(prefix=".hftrace-run-", dir=directory))
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror or error}") from None
    try:
        result = _run(request, header, run, on_progress, on_output, on_stall or _report)
    except BaseException as error:
        if not any(run.glob(f"{JOURNAL_PREFIX}*")):
            shutil.rmtree(run, ignore_errors=True)
        elif isinstance(error, Exception):
            # What was recorded is worth more than a tidy folder.
            reason = error.message if isinstance(error, HftraceError) else f"{type(error).__name__}: {error}"
            raise HftraceError(
                f"no trace could be made from the journal of this load, which is kept in {run} "
                f"(hftrace recover tries again): {reason}"
            ) from error
        raise
    shutil.rmtree(run, ignore_errors=True)
    return result


def _run(
    request: LoadRequest,
    header: Mapping[str, Any],
    run: Path,
    on_progress: Callable[[LiveState], None] | None,
    on_output: Callable[[str], None] | None,
    on_stall: Callable[[str], None],
) -> LoadResult:
    public, secret = split_secrets(request.keywords)
    around = {**os.environ, **request.environment}
    environment = {name: value for name, value in around.items() if name != SECRETS_VARIABLE}
    if secret:
        environment[SECRETS_VARIABLE] = json.dumps(secret)
    (run / REQUEST_FILE).write_text(
        json.dumps(
            {
                "model": request.model,
                "class": request.class_name,
                "task": request.task,
                "keywords": public,
                "quiet_bars": request.quiet_bars,
                "touch": request.touch,
                "forward": request.forward,
                "inputs": request.inputs,
                "release": request.release,
            }
        ),
        encoding="utf-8",
    )
    cache = prepare(request.model, request.keywords, request.cache) if request.cache else None
    witness = OomCounters.snapshot()
    log = SupervisorLog(run)
    log.write(
        RUN,
        {
            "header": dict(header),
            # Said here too: a child that is killed while it imports has not said it yet.
            "request": {
                "model": redact(request.asked or request.model),
                "path": redact(request.model) if os.path.isdir(request.model) else None,
                "class": request.class_name,
                "keywords": redact_value({**public, **secret}),
                "cache": cache,
            },
            "counters": witness.before,
            "group": witness.group_facts(),
            "limits": {**witness.limits(), "memory_limit_bytes": request.memory_limit_bytes},
        },
    )
    started = time.monotonic_ns()
    try:
        child = subprocess.Popen(
            [request.python, str(BOOTSTRAP), "load", str(run)],
            stdin=subprocess.DEVNULL,
            env=environment,
            # Results are ours alone to print on stdout.
            stdout=subprocess.PIPE if on_output else sys.stderr,
            stderr=subprocess.STDOUT if on_output else sys.stderr,
        )
    except OSError as error:
        raise UsageError(f"cannot start {request.python}: {error.strerror or error}") from None
    log.write(CHILD, {"pid": child.pid, "start_ns": started, "start_ticks": start_ticks(child.pid)})
    try:
        sampler = _sampler(child.pid, run, request)
    except BaseException:
        child.kill()
        child.wait()
        raise
    reader = None
    if on_output is not None and child.stdout is not None:
        reader = threading.Thread(target=_forward, args=(child.stdout, on_output), daemon=True)
        reader.start()
    tail = JournalTail(run)
    follower = JournalFollower(run, tail)
    watchdog = Watchdog(
        run,
        timeout_seconds=request.timeout_seconds,
        stall_seconds=request.stall_seconds,
        tail=tail,
        follower=follower,
        log=log,
        report=on_stall,
    )
    with _terminate_as_interrupt():
        interrupted = _wait(child, follower, on_progress, watchdog)
    ended = time.monotonic_ns()
    if reader is not None:
        reader.join(timeout=5)
    if sampler is not None:
        sampler.stop()
    code = child.returncode
    log.write(END, {"exit_code": code, "interrupted": interrupted, "end_ns": ended})
    try:
        trace = build_trace(run, read_log(run), witness)
    except TraceError:
        if any(run.glob(f"{JOURNAL_PREFIX}*")):
            raise
        if interrupted:
            raise KeyboardInterrupt from None
        raise _nothing_recorded(request.python, run, code) from None
    return LoadResult(trace, code)


def _sampler(pid: int, run: Path, request: LoadRequest) -> SamplerProcess | None:
    """Starts the sampler, where samples or a limit are asked for.

    Raises:
        HftraceError: It cannot be started, and a limit was asked for.
    """
    if not request.sample_hz and request.memory_limit_bytes is None:
        return None
    try:
        return SamplerProcess(pid, run, request.sample_hz, limit_bytes=request.memory_limit_bytes)
    except OSError as error:
        if request.memory_limit_bytes is None:
            return None  # no second process to be had: the trace says that there are no samples
        raise HftraceError(
            "the memory limit cannot be watched, because no second process can be started "
            f"({error.strerror or error}): end other programs, or load without --memory-limit"
        ) from None


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _nothing_recorded(python: str, run: Path, code: int) -> HftraceError:
    """Says why a child left no journal: what it wrote itself, else how it ended."""
    try:
        problem = (run / PROBLEM_FILE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        problem = ""
    if problem:
        return UsageError(f"{python} cannot run hftrace: {problem}")
    how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
    return HftraceError(f"{python} {how} before it could record anything: is it a Python interpreter?")


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Lets SIGTERM end the load and leave its trace, as Ctrl-C does, and not this process alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _wait(
    child: subprocess.Popen[bytes],
    follower: JournalFollower,
    on_progress: Callable[[LiveState], None] | None,
    watchdog: Watchdog,
) -> bool:
    """Waits for the child; returns whether the user interrupted it."""
    interrupted, forwarded = False, False
    since = 0.0
    with _ExitWaiter(child) as end:
        while True:
            try:
                if interrupted:
                    waited = time.monotonic() - since
                    if waited > INTERRUPT_GRACE_SECONDS:
                        child.kill()
                    elif waited > FORWARD_SECONDS and not forwarded:
                        forwarded = True
                        child.send_signal(signal.SIGINT)
                live = interrupted or on_progress is not None
                if end.came(LOOK_SECONDS if live else watchdog.pause()):
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

    def came(self, seconds: float | None) -> bool:
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


def _forward(stream: IO[bytes], on_output: Callable[[str], None]) -> None:
    for raw in stream:
        text = raw.decode("utf-8", "replace").rstrip("\n")
        # The client's own warnings name URLs with their signatures.
        on_output(redact(text.rpartition("\r")[2]))


def working_directory(output: Path | None) -> Path:
    """Returns where the journal of a run lives: beside its trace, or in a temporary place."""
    return output.parent if output is not None else Path(tempfile.gettempdir())
