"""A program that is traced as it is: recording begins before its first line, and ends after its last.

Nobody calls this but the interpreter itself, at its start: see
:mod:`hftrace.record.child.site`. The program's own children come here
too, because they inherit the variable that says where to record. What is
recorded there is made a trace of by whoever has set the variable.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hftrace.record import gil, session
from hftrace.record.child.stacks import enable_stack_dumps
from hftrace.record.failures import ending_of
from hftrace.record.ranks import own_rank
from hftrace.record.recorder import shielded
from hftrace.record.tracer import Tracer
from hftrace.schema import journal
from hftrace.schema.redact import redact_arguments
from hftrace.system.floors import storage_facts
from hftrace.system.services import is_service

RUN_VARIABLE = "HFTRACE_RUN"
"""Says where a program and its children record: ``PID:DIRECTORY``. The process that PID has started is
the program itself."""
LOADERS = frozenset(
    {
        "accelerate",
        "diffusers",
        "huggingface_hub",
        "open_clip",
        "peft",
        "safetensors",
        "sentence_transformers",
        "timm",
        "tokenizers",
        "transformers",
    }
)
"""A process that has none of these has loaded nothing that is recorded."""


class Place(NamedTuple):
    """Where this process records."""

    directory: Path
    is_root: bool
    """Whether it is the program itself, and no child of it."""
    finish: Callable[[Tracer], None] | None = None
    """Called when the recording has ended."""


_begun: list[Place] = []
"""Where this process records: the interpreter may come here by more than one way."""
_ending: list[Callable[[], None]] = []
"""Ends its recording."""
_LAST = -1000
"""Of the finalizers of ``multiprocessing``, the one of the lowest priority comes last."""


def own_place() -> Place | None:
    """Returns where this process is to record; None for nowhere."""
    starter, _, directory = os.environ.get(RUN_VARIABLE, "").partition(":")
    if not starter.isdigit() or not os.path.isdir(directory):
        return None
    return Place(Path(directory), os.getppid() == int(starter))


def begin(place: Place | None = None) -> bool:
    """Begins to record this process, if it is to be.

    Args:
        place: Where; None for where the environment says.

    Returns:
        Whether it is recorded.
    """
    place = place or own_place()
    if place is None or _begun or is_service():
        return False
    reason = gil.refusal()
    if reason is not None:
        if place.is_root:
            sys.stderr.write(f"hftrace: nothing is recorded: {reason}\n")
        return False
    began = time.monotonic_ns()
    _begun.append(place)
    if place.is_root:
        enable_stack_dumps(os.fspath(place.directory))
    rank = own_rank().number
    _make_room(journal.journal_path(place.directory, os.getpid(), rank))
    facts = {"command": "run", "argv": redact_arguments(sys.orig_argv), "root": place.is_root}
    tracer = Tracer(place.directory, rank=rank, facts=facts)
    tracer.recorder.in_child = functools.partial(_begin_in_child, tracer, place)
    tracer.start()
    # The first to be registered is the last to be called: what the program does at its end is recorded too.
    _ending[:] = [atexit.register(functools.partial(_end, tracer, place))]
    shielded(tracer.recorder, "start", session.looked, tracer.recorder, began)
    return True


def _begin_in_child(tracer: Tracer, place: Place) -> None:
    """Begins to record a child by fork, at its first load: what most children do needs no recording.

    Args:
        tracer: Of the parent.
        place: Where the parent records.
    """
    try:
        tracer.drop()
        _begun.clear()
        begin(Place(place.directory, False))
        # One that multiprocessing has forked leaves by os._exit, and runs these before it does.
        util = sys.modules.get("multiprocessing.util")
        if util is not None and _ending:
            util.Finalize(None, _ending[0], exitpriority=_LAST)
    except Exception as error:
        sys.stderr.write(f"hftrace: a child is not recorded ({type(error).__name__}: {error})\n")


def _make_room(path: Path) -> None:
    """Gives the journal of what this process was before it started itself anew (``execv``) another name."""
    if path.exists():
        earlier = sum(1 for _ in path.parent.glob(f"{path.stem}-*{path.suffix}"))
        path.rename(path.with_name(f"{path.stem}-{earlier + 1}{path.suffix}"))


def _end(tracer: Tracer, place: Place) -> None:
    """Ends the recording, when the interpreter is about to end."""
    recorder = tracer.recorder
    if os.getpid() != recorder.pid or not recorder.active:
        return  # a child by fork has come to its end: the recording is its parent's
    # What Python has printed as it ended the program, and nothing else, is kept here.
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if isinstance(error, BaseException):
        shielded(recorder, "outcome", lambda: recorder.facts("outcome", ending_of(recorder, error)))
    if recorder.first_checkpoint is not None:
        found = shielded(recorder, "file system", storage_facts, recorder.first_checkpoint)
        recorder.facts("environment", found or {"filesystem": None})
    shielded(recorder, "session", session.ended, recorder)
    tracer.stop()
    if not place.is_root and LOADERS.isdisjoint(sys.modules):
        recorder.writer.path.unlink(missing_ok=True)
    if place.finish is not None:
        place.finish(tracer)
    recorder.files.close()
    if isinstance(error, KeyboardInterrupt):
        _die_of_it()


def _die_of_it() -> None:
    """Lets Python end itself by SIGINT, as it does where a KeyboardInterrupt has ended the program.

    It remembers that until the next text is executed (``run_eval_code_obj`` in pythonrun.c), as each named
    tuple is that comes into being, ours too; so it is told again.
    """
    with contextlib.suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")
