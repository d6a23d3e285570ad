"""Standard streams that may be closed, full, or left by their reader: none of it is a bug of ours."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class _WatchedStream:
    """Stands in for a stream, and keeps the error that it failed with.

    Args:
        stream: The stream.
        forgiving: Whether what cannot be written is lost, and ends nothing.
    """

    def __init__(self, stream: TextIO, forgiving: bool) -> None:
        self._stream = stream
        self._forgiving = forgiving
        self._knows = False
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(self._public(text))
        except OSError as error:
            self._note(error)
        return len(text)

    def _public(self, text: str) -> str:
        """Returns a text without the secrets that this process was given, in its command line above all."""
        from hftrace.schema.redact import learn_process, redact, redact_known  # not for --help and --version

        if not self._knows:
            self._knows = True
            learn_process()
        # What is drawn of a trace has none, and may be long; what is said of an error may hold anything.
        return redact(text) if self._forgiving else redact_known(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        self.failure = error
        if not self._forgiving:
            raise error


@contextlib.contextmanager
def usable_streams() -> Iterator[None]:
    """Gives the process standard streams that can be used, whatever its own are like.

    A descriptor that was closed (``>&-``) leads nowhere instead: the next file that is opened would get its
    number, and what is printed would go into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            # For as long as the process lives.
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    out, own = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _WatchedStream(out, False), _WatchedStream(own, True)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, own
        # What is left in its buffer would fail once more, and change the exit code.
        try:
            own.flush()
        except OSError:
            _lead_nowhere(own)


def is_of_stdout(error: OSError) -> bool:
    """Says whether an error came from writing to stdout, and not from any file."""
    return isinstance(error, BrokenPipeError) or getattr(sys.stdout, "failure", None) is error


def give_up_stdout() -> None:
    """Lets stdout lead nowhere: Python would complain again while it flushes it at exit."""
    _lead_nowhere(sys.stdout)


def _lead_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
