"""``HFTRACE=traces/{pid}.json`` in the environment: any Python program is traced, without a line of code.

The first process makes the trace when it ends, of all that it and its children have recorded. Where it is
killed, or leaves by ``os._exit``, what was recorded is kept, as after a
``hftrace.trace``, and ``hftrace recover`` makes the trace.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hftrace.errors import HftraceError
from hftrace.launch.kept import kept_words, still_running_words, to_stderr
from hftrace.launch.run_directory import RUN_PREFIX
from hftrace.record import waiting
from hftrace.record.child import program
from hftrace.record.ranks import own_rank
from hftrace.record.tracer import Tracer
from hftrace.schema import codec, journal
from hftrace.schema.redact import redact_arguments
from hftrace.system.attachment import VARIABLE, is_wait
from hftrace.system.processes import started_ns
from hftrace.system.services import is_service

if TYPE_CHECKING:
    from hftrace.launch.destination import Destination, Place
    from hftrace.schema.trace import Trace

SUFFIXES = (".json", ".json.gz")


def begin() -> None:
    """Begins to record this process, if the environment says so.

    Raises:
        HftraceError: It cannot be recorded as it was asked for.
    """
    if program.own_place() is not None:
        program.begin()
    elif is_wait(os.environ.get(VARIABLE, "")):
        waiting.begin()  # a run was named that is over
    elif os.environ.get(VARIABLE) and not is_service():
        _begin(os.environ[VARIABLE])


def _begin(asked: str) -> None:
    """Records this process as the first of its program."""
    from hftrace.launch.destination import Destination
    from hftrace.launch.sampling import SamplerProcess

    if not asked.endswith(SUFFIXES):
        raise HftraceError(
            f"{VARIABLE} names a trace, which is JSON: let {asked} end in .json or .json.gz, or say `wait`"
        )
    destination = Destination(asked, force=False)
    place = destination.first(own_rank())
    try:
        place.path.parent.mkdir(parents=True, exist_ok=True)
        run = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=place.path.parent)).absolute()
    except OSError as error:
        raise HftraceError(f"cannot write to {place.path.parent}: {error.strerror or error}") from None
    sampler: SamplerProcess | None = None

    def finish(tracer: Tracer) -> None:
        if sampler is not None:
            sampler.stop()
        _finish(tracer, run, destination, place)

    if not program.begin(program.Place(run, True, finish)):
        shutil.rmtree(run, ignore_errors=True)
        return
    # No process is this one's starter to its children: none of them is the program.
    os.environ[program.RUN_VARIABLE] = f"0:{run}"
    try:
        sampler = SamplerProcess(os.getpid(), run)
    except OSError:
        pass  # no process to be had: no samples, the recording goes on


def _finish(tracer: Tracer, run: Path, destination: Destination, place: Place) -> None:
    """Makes and saves the trace of this process and its children, unless nothing of them could load anything.

    Args:
        tracer: Has recorded this process.
        run: Where all of them have recorded.
        destination: Where the trace goes.
        place: The same, as it was when the program began.
    """
    if not _has_others(run) and program.LOADERS.isdisjoint(sys.modules):
        shutil.rmtree(run, ignore_errors=True)
        return
    try:
        trace, rank = _trace(tracer, run), own_rank()
        written = destination.save(trace, place, rank)
        if rank.of > 1:
            from hftrace.launch.jobs import join

            join(written, place.named, rank, force=False)
    except Exception as error:
        reason = error.message if isinstance(error, HftraceError) else f"{type(error).__name__}: {error}"
        to_stderr(f"hftrace: {reason}; {kept_words(run)}")
        return
    from hftrace.launch.ending.recovery import still_recording

    alive = still_recording(run, os.getpid())
    if alive:
        to_stderr(f"hftrace: {still_running_words(alive, run)}")
    else:
        shutil.rmtree(run, ignore_errors=True)


def _has_others(run: Path) -> bool:
    """Returns whether another process than this one has a journal there."""
    headers = map(codec.read_header, run.glob(f"{journal.JOURNAL_PREFIX}*{journal.SUFFIX}"))
    return any(header is not None and header.get("pid") != os.getpid() for header in headers)


def _trace(tracer: Tracer, run: Path) -> Trace:
    from hftrace.launch.in_process import with_post_mortem
    from hftrace.replay.trace import replay

    trace = replay(
        run,
        header={"command": "run", "argv": redact_arguments(sys.orig_argv)},
        started_ns=started_ns(os.getpid()),
        opened=tracer.recorder.files.opened,
        root=os.getpid(),
    )
    return with_post_mortem(trace)
