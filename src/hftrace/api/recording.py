"""``hftrace.trace(...)``: records the loads of the user's own process."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from hftrace.api.trace import Trace
from hftrace.errors import HftraceError
from hftrace.launch import in_process
from hftrace.launch.kept import to_stderr
from hftrace.launch.packed import Packed
from hftrace.launch.sampling import DEFAULT_RATE_HZ
from hftrace.schema import trace as schema
from hftrace.schema.model import Facts
from hftrace.schema.redact import redact

if TYPE_CHECKING:
    from typing_extensions import Self

Function = TypeVar("Function", bound=Callable[..., Any])

_NO_TRACE = {
    "not begun": "it has not begun: use it as `with recording:`, or call the function that it decorates",
    "recording": "its block has not been left yet",
    "interrupted": "an exception came while its block was being entered",
    "failed": "none could be made, as was said on stderr",
    "its parent's": "this process was forked inside its block, and the trace is its parent's",
}
"""Why a recording has no trace."""


def _with_otlp(afresh: Callable[[], Recording], otlp: bool) -> Recording:
    """Returns a recording that was sent to another process."""
    made = afresh()
    made._otlp = otlp
    return made


class Recording(in_process.Recording):
    """What :func:`hftrace.trace` returns: a context manager, and a decorator.

    It can be used again when its block has been left, and by as many functions
    and calls as you like; two blocks at once need two recordings.
    """

    _shown: tuple[schema.Trace, Trace] | None = None
    """The trace that was made, and the same as a program reads it."""
    _otlp = False
    """Whether traces go to OpenTelemetry's collector, too."""

    def _for_a_call(self, code: CodeType | None) -> Self:
        made = super()._for_a_call(code)
        made._otlp = self._otlp
        return made

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        afresh, nothing = super().__reduce__()
        return functools.partial(_with_otlp, afresh, self._otlp), nothing

    def _told(self, trace: schema.Trace) -> schema.Trace:
        """Sends the trace to the collector; one that cannot be sent is kept, with the reason."""
        if not self._otlp:
            return trace
        from hftrace.export.otlp_send import send

        try:
            send([trace])
            return trace
        except Exception as failure:
            named = f"{type(failure).__name__}: {failure}"
            reason = failure.message if isinstance(failure, HftraceError) else named
        to_stderr(f"hftrace: {reason}; the trace itself is kept")
        try:
            exports = [*(trace.header.get("exports") or ()), {"format": "otlp", "error": redact(reason)}]
            noted = dataclasses.replace(trace, header=Facts({**trace.header, "exports": exports}))
            if self._written is not None and self._written.is_file():
                noted.save(self._written)
            return noted
        except Exception:
            return trace  # as it was written

    @property
    def trace(self) -> Trace:
        """The trace of the block, or of the call of a decorated function, that was left last.

        Raises:
            HftraceError: There is none, for the reason that it says.
        """
        if self._finished is None:
            raise HftraceError(f"this recording has no trace: {_NO_TRACE[self._state]}")
        if isinstance(self._finished, Packed):
            self._finished = self._finished.trace()
        if self._shown is None or self._shown[0] is not self._finished:
            self._shown = self._finished, Trace.of(self._finished, self._written)
        return self._shown[1]

    @property
    def finished(self) -> bool:
        """Whether there is a trace."""
        return self._finished is not None

    @property
    def path(self) -> Path | None:
        """Where its last trace was written, or is to be; None for one that is in memory alone.

        That is also one that could not be written, as was said on stderr.
        """
        return self._destination.asked if self._finished is None else self._written

    @property
    def unsaved(self) -> str | None:
        """Why its last trace could not be written, and how to make it of what is kept; None where it was."""
        return self._unsaved

    def __repr__(self) -> str:
        return f"<Recording {self.path or 'in memory'}: {self._state}>"


@overload
def trace(
    function: Function,
    /,
    *,
    sample_hz: float = ...,
    exact_peaks: bool = ...,
    verify: bool = ...,
    otlp: bool = ...,
    force: bool = ...,
) -> Function: ...


@overload
def trace(
    path: str | os.PathLike[str] | None = None,
    *,
    sample_hz: float = ...,
    exact_peaks: bool = ...,
    verify: bool = ...,
    otlp: bool = ...,
    force: bool = ...,
) -> Recording: ...


def trace(
    path: Any = None,
    *,
    sample_hz: float = DEFAULT_RATE_HZ,
    exact_peaks: bool = True,
    verify: bool = False,
    otlp: bool = False,
    force: bool = False,
) -> Any:
    """Records every load in a block, or in each call of a decorated function.

    ::

        with hftrace.trace("out.json") as recorded:
            model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-2-7b-hf")
        recorded.trace.show()

        @hftrace.trace("start.json")        # or @hftrace.trace alone, which keeps traces in memory
        def start():
            ...

        start.recorded.trace.show()         # of the call that ended last

    The load itself is not changed: same tensors, warnings and exceptions. An
    exception passes through, and the trace of what happened until then is kept.
    Blocks may lie in one another and run in several threads, each with a
    recording of its own; each sees all that the process loads meanwhile.

    A function that is decorated may be a method, a coroutine, a generator or an
    asynchronous generator, and stays one. A call is recorded from its first
    step until it returns, raises, is closed, or is forgotten.

    Args:
        path: Where to write the trace (``.json`` or ``.json.gz``); None keeps
            it in memory only. A file that is there already is refused before
            the block begins. Later calls of a decorated function are never
            refused: their traces go beside the first, to ``out-2.json`` and so
            on. ``{call}`` in it becomes the number of the call, ``{pid}`` that
            of the process. Of the ranks of a job the first writes there, and
            each other one beside it: ``out.rank1.json``. A function in its
            place is decorated, and its traces are kept in memory.
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
        otlp: When the block is left and its trace is written, send its spans to the collector of
            OpenTelemetry that ``OTEL_EXPORTER_OTLP_ENDPOINT`` names, below ``TRACEPARENT`` where that is
            set. That they could not be sent is said on stderr and in the trace, and never raised. Needs
            ``pip install 'hftrace[otel]'``.
        force: Overwrite a file that is there: each trace then goes to exactly
            the path that was named, over that of the call before.

    Returns:
        The :class:`hftrace.Recording`; of a function, the function that records its calls.

    Raises:
        HftraceError: When the block begins: the file is there, or cannot be written.
        TypeError: It is a class, or something else that cannot be decorated.
    """
    named = path is None or isinstance(path, (str, os.PathLike))
    recording = Recording(
        path if named else None, sample_hz=sample_hz, exact_peaks=exact_peaks, verify=verify, force=force
    )
    recording._otlp = otlp
    if named:
        return recording
    if not callable(path) and not isinstance(path, (staticmethod, classmethod)):
        raise TypeError(f"hftrace.trace takes the path of a file or a function, and not {path!r:.80}")
    return recording(path)
