"""``hftrace.trace(...)``: traces the loads of the user's own process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from hftrace.analysis.ending.death_facts import DeathFacts
from hftrace.analysis.ending.postmortem import post_mortem
from hftrace.errors import HftraceError
from hftrace.launch.sampling import DEFAULT_RATE_HZ, SamplerProcess
from hftrace.launch.verified import verify_loads
from hftrace.record import session
from hftrace.record.ranks import ALONE, own_rank
from hftrace.record.recorder import shielded
from hftrace.record.tracer import Tracer
from hftrace.replay.trace import replay
from hftrace.schema.model import Facts
from hftrace.schema.redact import redact_arguments
from hftrace.schema.trace import Trace
from hftrace.system.limits import binding_cgroup_limit_bytes, ram_bytes
from hftrace.system.mounts import file_system_of


class trace(contextlib.ContextDecorator):  # noqa: N801 (it reads as the verb it is)
    """Records every load between enter and exit, or in each call of the decorated function.

    ::

        with hftrace.trace("out.json") as recorded:
            model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-2-7b-hf")
        print(recorded.trace.loads[0].duration_ns)

    The load itself is not changed: same tensors, warnings and exceptions. An
    exception passes through, and the trace of what happened until then is kept.

    Args:
        path: Where to write the trace (``.json`` or ``.json.gz``); None keeps
            it in memory only. A function that is decorated and called twice
            overwrites its trace. Of the ranks of a job the first writes there,
            and each other one beside it: ``out.rank1.json``.
        sample_hz: Readings of this process's memory per second, by a process
            of its own; 0 for none.
        exact_peaks: Read and reset the kernel's watermark of resident memory,
            and those of the devices' allocators, at each span, for exact
            peaks. This also lowers the maximum that ``/usr/bin/time``,
            ``getrusage`` and ``torch.cuda.max_memory_allocated`` report for
            this process afterwards; False leaves them alone.
        verify: When the block is left without an exception, hold every tensor
            of the models that were loaded in it, and are still there, against
            the bytes of their files. It changes nothing, takes as long as
            reading the files, and makes memory-mapped weights resident.

    Attributes:
        trace: The finished trace, once the block has been left.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        sample_hz: float = DEFAULT_RATE_HZ,
        exact_peaks: bool = True,
        verify: bool = False,
    ) -> None:
        if sample_hz < 0 or sample_hz > 10_000:
            raise ValueError(f"sample_hz must lie between 0 and 10000, got {sample_hz}")
        self.path = Path(path) if path is not None else None
        self.trace: Trace | None = None
        self._sample_hz = sample_hz
        self._exact_peaks = exact_peaks
        self._verify = verify
        self._rank = ALONE
        self._directory: Path | None = None
        self._tracer: Tracer | None = None
        self._sampler: SamplerProcess | None = None

    def _recreate_cm(self) -> trace:
        # A decorated function may call itself, or run in several threads: each call its own recording.
        return type(self)(
            self.path, sample_hz=self._sample_hz, exact_peaks=self._exact_peaks, verify=self._verify
        )

    def __enter__(self) -> trace:
        if self._tracer is not None:
            raise RuntimeError("this trace is recording already; use one hftrace.trace(...) per block")
        if self.path is not None:
            _check_writable(self.path)
        self._directory = Path(tempfile.mkdtemp(prefix="hftrace-"))
        self._rank = own_rank()
        facts = {"command": "trace", "argv": redact_arguments(sys.argv)}
        self._tracer = Tracer(
            self._directory,
            rank=self._rank.number,
            exact_peaks=self._exact_peaks,
            facts=facts,
        )
        if self._sample_hz:
            with contextlib.suppress(OSError):  # no process to be had: no samples, the recording goes on
                self._sampler = SamplerProcess(os.getpid(), self._directory, self._sample_hz)
        try:
            self._tracer.start()
        except BaseException:
            # A bug of ours: the host goes on without what had been installed until then.
            self.__exit__(*sys.exc_info())
            raise
        shielded(self._tracer.recorder, "session", session.began, self._tracer.recorder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tracer, self._tracer = self._tracer, None
        directory, self._directory = self._directory, None
        if tracer is None or directory is None:
            return
        try:
            if self._verify and kind is None and os.getpid() == tracer.recorder.pid:
                verify_loads(tracer.recorder)
        finally:
            shielded(tracer.recorder, "session", session.ended, tracer.recorder, error)
            self._finish(tracer, directory, error)

    def step(self, name: str) -> session.Step:
        """Names a part of the block: a span of phase ``step`` in this recording.

        As :func:`hftrace.step` does in every recording that is active. Steps may lie in one another, and
        loads in steps; outside of the block it does nothing.

        Args:
            name: What the screen calls it.
        """
        return session.step_of(name, lambda: self._tracer.recorder if self._tracer is not None else None)

    def _finish(self, tracer: Tracer, directory: Path, error: BaseException | None) -> None:
        """Stops recording, and makes and saves the trace."""
        try:
            tracer.stop()
        except Exception as failure:
            tracer.recorder.error("stop", failure)
        if os.getpid() != tracer.recorder.pid:
            # A child made by fork has left the block: recording and trace are its parent's.
            self._sampler = None
            return
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None
        raised = {"block_error": type(error).__name__} if error is not None else None
        try:
            self.trace = replay(
                directory,
                header={"command": "trace", "argv": redact_arguments(sys.argv)},
                environment={"filesystem": checkpoint_file_system(tracer)},
                outcome=raised,
            )
        except Exception as failure:
            # The user's model, or exception, matters more than our trace of it.
            print(  # noqa: T201
                f"hftrace: no trace could be made ({type(failure).__name__}: {failure}), which is a bug of "
                f"hftrace; what was recorded is in {directory}",
                file=sys.stderr,
            )
            return
        with contextlib.suppress(Exception):  # the facts themselves are in the trace
            self.trace = with_post_mortem(self.trace)
        shutil.rmtree(directory, ignore_errors=True)
        if self.path is not None:
            rank = own_rank()
            if rank == ALONE:
                rank = self._rank  # the group may have been left by now
            try:
                path = rank.path(self.path)
                self.trace.save(path)
                if rank.of > 1:
                    print(f"hftrace: rank {rank.number} of {rank.of} wrote {path}", file=sys.stderr)  # noqa: T201
            except HftraceError as failure:
                if error is None:
                    raise
                # The user's exception matters more; the trace is still in memory.
                print(f"hftrace: {failure.message}", file=sys.stderr)  # noqa: T201


def with_post_mortem(trace: Trace) -> Trace:
    """Returns the trace with what can be said about the end of a load in a process that lives on."""
    facts = DeathFacts(cgroup_limit_bytes=binding_cgroup_limit_bytes(), ram_bytes=ram_bytes())
    return dataclasses.replace(trace, outcome=Facts({**trace.outcome, **post_mortem(trace, facts)}))


def checkpoint_file_system(tracer: Tracer) -> str | None:
    """Returns the file system of the first weight file that the tracer saw."""
    path = tracer.recorder.first_checkpoint
    return file_system_of(path) if path else None


def _check_writable(path: Path) -> None:
    """Fails before the load and not after it.

    Raises:
        HftraceError: The trace could not be written there.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise HftraceError(f"cannot write a trace to {path}: no such writable place; choose another", 2)


__all__ = ["checkpoint_file_system", "trace"]
