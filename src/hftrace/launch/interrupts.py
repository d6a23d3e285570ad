"""Ctrl-C, SIGTERM and SIGHUP while a load is run: they end it, and never cut off what belongs to it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from hftrace.errors import SignalInterrupt

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupts:
    """Holds back the signals that end a program, except where it waits for a load.

    A signal that arrives while a process is being started, or while its trace is being made, would
    leave a process or the directory of a run behind. It is remembered, and raised as
    KeyboardInterrupt by the next :meth:`allowed`. A second one is raised at once, wherever it
    arrives: who asks twice does not want to wait. After that none is raised any more: what is
    left to do is to keep what was recorded, and to say where.

    Used as a context manager. Outside of the main thread nothing is held back, because no signal
    is handled there; nor is a signal that the program ignores, or a SIGINT that it handles.

    Attributes:
        pending: Signals that have arrived and were not raised yet.
        first: Name of the signal that came first; None where none has.
    """

    def __init__(self) -> None:
        self.pending = 0
        self.first: str | None = None
        self._raising = False
        self._given_up = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                handled = number == signal.SIGINT and before is not signal.default_int_handler
                if handled or before is signal.SIG_IGN:
                    continue
                self._before[number] = before
                signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before if before is not None else signal.SIG_DFL)
        self._before.clear()

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Lets a signal be raised inside the block; one that is pending is raised at its beginning.

        Raises:
            KeyboardInterrupt: A signal has arrived.
        """
        self._raising = True
        try:
            self.check()
            yield
        finally:
            self._raising = False

    def check(self) -> None:
        """Raises what is pending.

        Raises:
            KeyboardInterrupt: A signal has arrived.
        """
        if self.pending:
            self._raise()

    def _receive(self, number: int, *_: object) -> None:
        self.pending += 1
        self.first = self.first or signal.Signals(number).name
        if self._given_up:
            return
        if self._raising:
            self._raise()
        elif self.pending > 1:
            self._given_up = True
            self._raise()

    def _raise(self) -> None:
        # Here too: the next signal may arrive before the block has been left.
        self._raising = False
        self.pending = 0
        raise SignalInterrupt(self.first or "SIGINT")
