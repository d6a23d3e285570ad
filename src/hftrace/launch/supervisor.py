"""Runs one load in a fresh process and makes its trace, however the process ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hftrace.errors import HftraceError, TraceError, UsageError
from hftrace.launch.progress import JournalFollower, LiveState
from hftrace.launch.sampling import DEFAULT_RATE_HZ, SamplerProcess
from hftrace.record.child import REQUEST_FILE
from hftrace.schema.model import Trace
from hftrace.schema.replay import replay

BOOTSTRAP = Path(__file__).parent.parent / "record" / "bootstrap.py"
INTERRUPT_GRACE_SECONDS = 10.0
"""How long an interrupted load may take to end before it is killed."""
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class LoadRequest:
    """What to load, and how.

    Args:
        model: A directory or a Hub id.
        keywords: Keywords of ``from_pretrained`` as JSON values.
        class_name: The class to load with; None finds it from the config.
        task: A task instead of a class.
        python: The interpreter of the loading process.
        sample_hz: Readings of the process's memory per second; 0 for none.
        quiet_bars: Whether to switch transformers' progress bars off.
    """

    model: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    class_name: str | None = None
    task: str | None = None
    python: str = sys.executable
    sample_hz: float = DEFAULT_RATE_HZ
    quiet_bars: bool = False


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
        result = _run(request, header, run, on_progress, on_output)
    except BaseException:
        if not any(run.glob("journal-*")):
            shutil.rmtree(run, ignore_errors=True)
        raise
    shutil.rmtree(run, ignore_errors=True)
    return result


def _run(
    request: LoadRequest,
    header: Mapping[str, Any],
    run: Path,
    on_progress: Callable[[LiveState], None] | None,
    on_output: Callable[[str], None] | None,
) -> LoadResult:
    (run / REQUEST_FILE).write_text(
        json.dumps(
            {
                "model": request.model,
                "class": request.class_name,
                "task": request.task,
                "keywords": dict(request.keywords),
                "quiet_bars": request.quiet_bars,
            }
        ),
        encoding="utf-8",
    )
    started = time.monotonic_ns()
    try:
        child = subprocess.Popen(
            [request.python, str(BOOTSTRAP), "load", str(run)],
            stdin=subprocess.DEVNULL,
            # Results are ours alone to print on stdout.
            stdout=subprocess.PIPE if on_output else sys.stderr,
            stderr=subprocess.STDOUT if on_output else sys.stderr,
        )
    except OSError as error:
        raise UsageError(f"cannot start {request.python}: {error.strerror or error}") from None
    sampler = None
    if request.sample_hz:
        try:
            sampler = SamplerProcess(child.pid, run, request.sample_hz)
        except OSError:
            pass  # no second process to be had: the trace says that there are no samples
    reader = None
    if on_output is not None and child.stdout is not None:
        reader = threading.Thread(target=_forward, args=(child.stdout, on_output), daemon=True)
        reader.start()
    interrupted = _wait(child, JournalFollower(run), on_progress)
    ended = time.monotonic_ns()
    if reader is not None:
        reader.join(timeout=5)
    if sampler is not None:
        sampler.stop()
    code = child.returncode
    try:
        trace = replay(
            run,
            header={**header, "child": {"start_ns": started, "end_ns": ended}},
            outcome=_outcome(code, interrupted),
        )
    except TraceError:
        raise HftraceError(
            f"the loading process ended with code {code} before it could record anything; "
            f"does {request.python} run, and can it import torch and transformers?"
        ) from None
    return LoadResult(trace, code)


def _outcome(code: int, interrupted: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"exit_code": code}
    if code < 0:
        try:
            facts["signal"] = signal.Signals(-code).name
        except ValueError:
            facts["signal"] = f"signal {-code}"
        facts["status"] = "killed"
    if interrupted:
        facts["status"] = "interrupted"
    return facts


def _wait(
    child: subprocess.Popen[bytes],
    follower: JournalFollower,
    on_progress: Callable[[LiveState], None] | None,
) -> bool:
    """Waits for the child; returns whether the user interrupted it."""
    interrupted = False
    deadline: float | None = None
    while True:
        try:
            if on_progress is None:
                child.wait(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
                return interrupted
            try:
                child.wait(timeout=LOOK_SECONDS)
                return interrupted
            except subprocess.TimeoutExpired:
                on_progress(follower.look())
            if deadline is not None and time.monotonic() > deadline:
                child.kill()
        except subprocess.TimeoutExpired:
            child.kill()
        except KeyboardInterrupt:
            # The terminal has sent the same signal to the child, which ends by itself; a second
            # one, or patience at an end, kills it.
            if interrupted:
                child.kill()
            interrupted = True
            deadline = time.monotonic() + INTERRUPT_GRACE_SECONDS


def _forward(stream: IO[bytes], on_output: Callable[[str], None]) -> None:
    for raw in stream:
        text = raw.decode("utf-8", "replace").rstrip("\n")
        on_output(text.rpartition("\r")[2])


def working_directory(output: Path | None) -> Path:
    """Returns where the journal of a run lives: beside its trace, or a temporary place for a trace to stdout."""
    return output.parent if output is not None else Path(tempfile.gettempdir())
