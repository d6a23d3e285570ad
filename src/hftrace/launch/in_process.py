"""``hftrace.trace(...)``: traces the loads of the user's own process."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import gc
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.postmortem import post_mortem
from hftrace.analysis.lost import stop_reason
from hftrace.errors import HftraceError, UsageError
from hftrace.launch.decorating import code_of, decorated
from hftrace.launch.destination import Destination, Place
from hftrace.launch.ending.conclusion import with_samplers
from hftrace.launch.jobs import join, ranks_words, survivor
from hftrace.launch.kept import has_journal, insist, kept_words, restore, to_stderr
from hftrace.launch.packed import Packed, packed
from hftrace.launch.run_directory import BLOCK_PREFIX
from hftrace.launch.sampling import DEFAULT_RATE_HZ, SamplerProcess, sampler_options
from hftrace.launch.verified import verify_loads
from hftrace.record import gil, session
from hftrace.record.failures import ending_of
from hftrace.record.interruptions import pass_on
from hftrace.record.ranks import ALONE, own_rank
from hftrace.record.recorder import shielded
from hftrace.record.second_look import models_of
from hftrace.record.tracer import Tracer
from hftrace.replay.trace import replay
from hftrace.schema.model import Facts
from hftrace.schema.redact import redact_arguments
from hftrace.schema.trace import Trace
from hftrace.system.floors import storage_facts
from hftrace.system.heap import trim
from hftrace.system.limits import binding_cgroup_limit_bytes, ram_bytes

if TYPE_CHECKING:
    from typing_extensions import Self

Function = TypeVar("Function", bound=Callable[..., Any])


class Recording:
    """Records every load of this process between enter and exit; what ``hftrace.trace(...)`` returns.

    One recording has one block open at a time; each call of a function that it
    decorates has a recording of its own, so that calls may overlap.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        sample_hz: float = DEFAULT_RATE_HZ,
        exact_peaks: bool = True,
        verify: bool = False,
        force: bool = False,
    ) -> None:
        if sample_hz < 0 or sample_hz > 10_000:
            raise ValueError(f"sample_hz must lie between 0 and 10000, got {sample_hz}")
        self._finished: Trace | Packed | None = None
        self._written: Path | None = None
        self._unsaved: str | None = None
        self._sample_hz = sample_hz
        self._exact_peaks = exact_peaks
        self._verify = verify
        self._force = force
        self._destination = Destination(path, force)
        self._decorator: Recording | None = None
        self._code: CodeType | None = None
        self._entered = threading.Lock()  # never waited for: it says who came first
        self._state = "not begun"
        self._rank = ALONE
        self._place: Place | None = None
        self._directory: Path | None = None
        self._tracer: Tracer | None = None
        self._sampler: SamplerProcess | None = None

    def __call__(self, function: Function) -> Function:
        """Decorates a function: each of its calls is recorded, from its first step to its last.

        Raises:
            TypeError: It is a class, or something else whose calls cannot be recorded.
        """
        made: Function = decorated(function, functools.partial(self._for_a_call, code_of(function)))
        inner = made.__func__ if isinstance(made, (staticmethod, classmethod)) else made
        inner.recorded = self  # type: ignore[attr-defined]
        return made

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        # What sends a decorated function to another process takes its recording along: the settings, afresh.
        made = functools.partial(
            type(self),
            self._destination.asked,
            sample_hz=self._sample_hz,
            exact_peaks=self._exact_peaks,
            verify=self._verify,
            force=self._force,
        )
        return made, ()

    def _for_a_call(self, code: CodeType | None) -> Self:
        """Returns the recording of one call of a decorated function, which has this code."""
        made = type(self)(
            sample_hz=self._sample_hz, exact_peaks=self._exact_peaks, verify=self._verify, force=self._force
        )
        made._destination = self._destination
        made._decorator, made._code = self, code
        return made

    def __enter__(self) -> Self:
        if not self._entered.acquire(blocking=False):
            raise RuntimeError(
                "this recording is going on already: give each block and each thread a "
                "`with hftrace.trace(...)` of its own"
            )
        try:
            self._begin()
            return self
        except BaseException:
            self._take_back("interrupted")
            raise

    @session.beside("hftrace.trace begins")
    def _begin(self) -> None:
        reason = gil.refusal()
        if reason is not None:
            raise UsageError(reason)
        self._rank = own_rank()
        self._place = self._destination.claim(self._rank)
        try:
            self._directory = Path(tempfile.mkdtemp(prefix=BLOCK_PREFIX))
            facts = {"command": "trace", "argv": redact_arguments(sys.argv)}
            self._tracer = Tracer(
                self._directory, rank=self._rank.number, exact_peaks=self._exact_peaks, facts=facts
            )
        except BaseException as error:
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)
                self._directory = None
            self._give_back_place()
            if isinstance(error, OSError):
                raise HftraceError(
                    f"cannot record to the temporary directory {error.filename or ''}: "
                    f"{error.strerror or error}; set TMPDIR to one with room"
                ) from None
            raise
        self._finished = self._written = self._unsaved = None
        self._state = "recording"
        if self._sample_hz:
            with contextlib.suppress(OSError):  # no process to be had: no samples, the recording goes on
                options = sampler_options(os.getpid(), self._sample_hz)
                if self._place is not None:
                    options.then = survivor(self._place.named, self._directory, force=self._force)
                self._sampler = SamplerProcess(os.getpid(), self._directory, options)
        # A generator that is never closed, a daemon's thread: nothing leaves their blocks.
        atexit.register(self._end_with_the_process)
        try:
            self._tracer.start()
        except Exception as failure:
            pass_on(failure)
            # The block runs all the same: nothing of it is recorded.
            self._take_back("failed")
            reason = f"{type(failure).__name__}: {failure}"
            print(f"hftrace: nothing is recorded ({reason}), which is a bug of hftrace", file=sys.stderr)  # noqa: T201
            return
        shielded(self._tracer.recorder, "session", session.began, self._tracer.recorder, self._code)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tracer: Tracer | None = None
        try:
            tracer, self._tracer = self._tracer, None
            if tracer is not None:
                # A generator that is closed, or forgotten, has not failed.
                self._end(tracer, None if isinstance(error, GeneratorExit) else error)
        finally:
            if tracer is not None:
                # After a Ctrl-C in the middle: nothing stays on, all the same.
                self._let_go(tracer)

    def _take_back(self, state: str) -> None:
        """Undoes what :meth:`_begin` has done so far, because an exception left it."""
        tracer, self._tracer = self._tracer, None
        with contextlib.ExitStack() as steps:  # all of them, whatever comes in between
            steps.callback(self._let_go, tracer)
            steps.callback(self._give_back_place)
            if tracer is not None:
                self._state = state
            if self._directory is not None:
                steps.callback(shutil.rmtree, self._directory, ignore_errors=True)
            self._directory = None

    def _let_go(self, tracer: Tracer | None) -> None:
        """Takes off what is still on, ends what still runs, and lets another block begin."""
        sampler, self._sampler = self._sampler, None
        with contextlib.ExitStack() as steps:
            steps.callback(self._entered.release)
            steps.callback(atexit.unregister, self._end_with_the_process)
            if tracer is not None:
                if sampler is not None and os.getpid() == tracer.recorder.pid:
                    steps.callback(sampler.stop)
                steps.callback(tracer.drop)

    def _end_with_the_process(self) -> None:
        self.__exit__(None, None, None)

    def _end(self, tracer: Tracer, error: BaseException | None) -> None:
        """Ends the recording, and makes and saves the trace.

        Args:
            tracer: What recorded.
            error: What the block was left with.
        """
        directory, self._directory = self._directory, None
        assert directory is not None  # made before the tracer
        atexit.unregister(self._end_with_the_process)
        try:
            if self._verify and error is None and os.getpid() == tracer.recorder.pid:
                verify_loads(tracer.recorder)
        finally:
            try:
                shielded(tracer.recorder, "session", session.ended, tracer.recorder, error, self._code)
                self._finish(tracer, directory, error)
            except BaseException:
                # The user does not want to wait, at whatever step that is.
                self._state = "failed" if self._finished is None else self._state
                if os.getpid() == tracer.recorder.pid and has_journal(directory):
                    insist(f"hftrace: {kept_words(directory)}")
                raise
            finally:
                tracer.recorder.files.close()
                self._give_back_place()
                if self._decorator is not None:
                    self._decorator._keep(self)

    def _give_back_place(self) -> None:
        if self._place is not None:
            self._destination.release(self._place)
            self._place = None

    def _keep(self, call: Recording) -> None:
        """Takes over the trace of a call of the decorated function."""
        self._finished, self._written, self._state = call._finished, call._written, call._state
        self._unsaved = call._unsaved

    def step(self, name: str) -> session.Step:
        """Names a part of the block: a span of phase ``step`` in this recording.

        As :func:`hftrace.step` does in every recording that is active. Steps may lie in one another, and
        loads in steps; outside of the block it does nothing.

        Args:
            name: What the screen calls it.
        """
        return session.step_of(name, lambda: self._tracer.recorder if self._tracer is not None else None)

    def watch(self, module: Any, name: str | None = None) -> None:
        """Puts a module that you have put together into the trace: ``--view model`` shows where it came from.

        For a head of your own around a loaded encoder, a pooler, two models in one: no load returned it, so
        no ledger has it. Called in the block, when its parts have been loaded and it is finished: each of
        its parameters and buffers is written down as it is then, with the load that it came from, by what it
        is and not by its name. Nothing of the module is kept or changed. Outside of the block it does
        nothing.

        Args:
            module: A ``torch.nn.Module``.
            name: What the screen calls it, besides its class.

        Raises:
            TypeError: It is no module.
        """
        if not hasattr(module, "_parameters") or not hasattr(module, "_modules"):
            raise TypeError(f"watch takes a torch.nn.Module, and not {type(module).__name__}")
        tracer = self._tracer
        if tracer is not None and os.getpid() == tracer.recorder.pid:
            recorder = tracer.recorder
            shielded(recorder, "watch", models_of(recorder).watch, module, str(name or ""))

    # Around __exit__ itself a Ctrl-C could come before the first line of that, which lets go of everything.
    @session.beside("hftrace.trace ends")
    def _finish(self, tracer: Tracer, directory: Path, error: BaseException | None) -> None:
        """Stops recording, and makes and saves the trace."""
        writer = tracer.recorder.writer
        held = writer.reopened()
        ending = ending_of(tracer.recorder, error)
        if os.getpid() == tracer.recorder.pid:
            # Said in the journal too: Ctrl-C, or who ends a job's ranks, may come while the trace is made.
            shielded(tracer.recorder, "ending", tracer.recorder.facts, "outcome", ending)
        try:
            tracer.stop()
        except Exception as failure:
            tracer.recorder.error("stop", failure)
        finally:
            if held is not None:
                restore(held, writer.path)
        if os.getpid() != tracer.recorder.pid:
            # A child made by fork has left the block: recording and trace are its parent's.
            self._sampler = None
            self._state = "its parent's"
            return
        sampler, self._sampler = self._sampler, None
        gone = sampler.stop() if sampler is not None else None
        checkpoint = tracer.recorder.first_checkpoint
        try:
            trace = replay(
                directory,
                header={"command": "trace", "argv": redact_arguments(sys.argv)},
                environment=storage_facts(checkpoint) if checkpoint else {"filesystem": None},
                outcome=ending,
                opened=tracer.recorder.files.opened,
            )
        except Exception as failure:
            pass_on(failure)
            # The user's model, or exception, matters more than our trace of it.
            self._state = "failed"
            reason = f"{type(failure).__name__}: {failure}"
            if has_journal(directory):
                said = f"hftrace: no trace could be made ({reason}), which is a bug of hftrace"
                to_stderr(f"{said}; {kept_words(directory)}")
            else:
                to_stderr(
                    f"hftrace: there is no trace, because {directory} was deleted while it was written to"
                )
            return
        with contextlib.suppress(Exception):  # the facts themselves are in the trace
            trace = with_samplers(with_post_mortem(trace), [gone.facts()] if gone is not None else [])
        if (why := stop_reason(trace)) is not None:
            to_stderr(
                f"hftrace: the journal stopped ({why}), so this trace is incomplete: "
                "set TMPDIR to a place with more room"
            )
        self._finished, self._state = trace, "done"
        if self._place is None or self._saved(trace, self._place, directory):
            shutil.rmtree(directory, ignore_errors=True)
        self._finished = trace = self._told(trace)
        # A rank's file becomes a part of another one at any moment.
        self._finished = packed(trace, self._written if self._rank.of < 2 else None)
        if self._finished is not trace:
            del trace
            if gc.isenabled():
                # It also lets go of what Python has set aside of the million objects that there were, which
                # keeps some 25 MB from being given back. A program that collects by itself does it then.
                gc.collect()
            trim()

    def _told(self, trace: Trace) -> Trace:
        """Tells others of the trace, which is written by now, and returns it as it is after that."""
        return trace

    def _saved(self, trace: Trace, place: Place, directory: Path) -> bool:
        """Writes the trace, and says so where that is news; returns whether it is written.

        One that is not is still in memory, and what it was made of stays: that a disk is full is no reason
        to end the user's program.
        """
        rank = own_rank()
        if rank == ALONE:
            rank = self._rank  # the group may have been left by now
        try:
            written = self._destination.save(trace, place, rank)
        except Exception as failure:
            pass_on(failure)
            named = f"{type(failure).__name__}: {failure}"
            reason = failure.message if isinstance(failure, HftraceError) else named
            self._unsaved = f"{reason}; {kept_words(directory)}"
            to_stderr(f"hftrace: {self._unsaved}")
            return False
        self._written = written
        if rank.of > 1:
            whole = join(written, place.named, rank, force=self._force)
            self._written = whole.path if whole is not None else written
            held = f", which holds {ranks_words(whole.trace)}" if whole is not None else ""
            to_stderr(f"hftrace: rank {rank.number} of {rank.of} wrote {self._written}{held}")
        elif written != place.path:
            to_stderr(f"hftrace: {place.path} is there by now: this trace is in {written}")
        return True


def with_post_mortem(trace: Trace) -> Trace:
    """Returns the trace with what can be said about the end of a load in a process that lives on."""
    facts = DeathFacts(cgroup_limit_bytes=binding_cgroup_limit_bytes(), ram_bytes=ram_bytes())
    return dataclasses.replace(trace, outcome=Facts({**trace.outcome, **post_mortem(trace, facts)}))
