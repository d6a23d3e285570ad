"""Writes the journal of this process.

Edges of spans are written at once by the thread that makes them: they are
few, and they are what a killed load must not lose. Everything that happens
per tensor goes into per-thread lists (see :mod:`hftrace.record.buffers`) that
a background thread empties every :data:`FLUSH_SECONDS`.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrace.schema.redact import clean_line, clean_names
from hftrace.system.descriptors import Descriptor

FLUSH_SECONDS = 0.035
"""At most this much of the per-tensor events, and what a flush takes, is lost when the process is killed
(DESIGN.md: 50 ms). A flush costs a few microseconds; waking up takes the interpreter's lock from the load."""

_encode = json.JSONEncoder(separators=(",", ":"), default=str, ensure_ascii=True).encode

WrittenLine = list[Any] | bytes
"""A line as its items, or as it stands in the file, without its end."""


def _text(lines: list[WrittenLine]) -> bytes:
    ready = [clean_names(line) if type(line) is bytes else clean_line(line, _encode) for line in lines]
    ready.append(b"")
    return b"\n".join(ready)


class JournalWriter:
    """Appends lines to one file; never raises into its caller.

    Args:
        path: The journal's file; made new.
        drain: Called by the background thread; returns the lines that wait
            in buffers.
        expects: Called by it after a wake-up that found nothing; returns
            whether :meth:`wake` will not be called before more comes.
            Where it returns False the thread sleeps until then.
    """

    def __init__(
        self, path: Path, drain: Callable[[], list[WrittenLine]], expects: Callable[[], bool] = lambda: True
    ) -> None:
        self.path = path
        self.lost = 0
        self.failure: str | None = None
        self.stopped: str | None = None
        """Why nothing more can be written: the disk is full, the file too large."""
        self._drain = drain
        self._expects = expects
        self._file: Descriptor | None = Descriptor.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._stopping = False
        # Let go of to wake the thread. A lock and no Event: waiting for it is one step in C.
        self._sleeping = threading.Lock()
        self._sleeping.acquire()
        self._resting = False
        self._draining = threading.Lock()
        self._pending: list[WrittenLine] = []
        # A finalizer or a signal handler of the host may run in the middle of our code, on this very thread,
        # and call what is hooked: it must find no lock that it waits for itself.
        self._writing = threading.RLock()
        self._thread = threading.Thread(target=self._run, name="hftrace-journal", daemon=True)

    def start(self) -> None:
        """Starts the background thread."""
        self._thread.start()

    def write(self, line: WrittenLine) -> None:
        """Writes one line now, behind whatever waits, in one system call."""
        with self._writing:
            waiting, self._pending = self._pending, []
            waiting.append(line)
            self._write(_text(waiting), len(waiting))

    def write_soon(self, line: WrittenLine) -> None:
        """Writes a line with the next one, or with the next flush.

        For the end of a span, whose time has been taken: what writing it
        costs would else fall between two spans.
        """
        with self._writing:
            self._pending.append(line)
        self.wake()

    def wake(self) -> None:
        """Lets the background thread look again every :data:`FLUSH_SECONDS`; waits for no lock."""
        if self._resting:
            self._end_sleep()

    def _end_sleep(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has been ended already
            self._sleeping.release()

    def _write(self, data: bytes, count: int) -> None:
        file = self._file
        if file is None or self.stopped is not None:
            # Behind a line that is cut nothing can be read: the journal has stopped.
            self.lost += count
            return
        try:
            if not file.is_ours():
                # The program has closed what it had not opened: on, at the end of the same file.
                self._file = file = Descriptor.open(self.path, os.O_WRONLY | os.O_APPEND)
            # A regular file takes all of it at once, short of a full disk.
            written = os.write(file.number, data)
            while written < len(data):
                data = data[written:]
                written = os.write(file.number, data)
        except OSError as error:
            self.lost += count
            self.failure = self.stopped = error.strerror or str(error)

    def flush(self, *, wait: bool = True) -> bool:
        """Empties the buffers into the file; returns whether there was anything.

        Args:
            wait: False where this may run in the middle of another flush of this very thread: the host's
                finalizers run anywhere. Where one is under way, nothing is done then.
        """
        if not self._draining.acquire(blocking=wait):
            return False
        try:
            lines = self._drain()
            text = _text(lines)
            with self._writing:
                waiting, self._pending = self._pending, []
                if waiting:
                    text = _text(waiting) + text
                if text:
                    self._write(text, len(waiting) + len(lines))
        finally:
            self._draining.release()
        return bool(text)

    def _run(self) -> None:
        while True:
            self._sleeping.acquire(timeout=FLUSH_SECONDS)
            if self._stopping:
                return
            try:
                if not self.flush() and not self._expects():
                    self._rest()
            except Exception as error:  # a broken flush must not end the thread
                self.lost += 1
                self.failure = f"{type(error).__name__}: {error}"

    def _rest(self) -> None:
        """Sleeps until there is something to wait for."""
        self._resting = True
        # Whoever puts something there from here on sees that the thread rests, and wakes it.
        if not self._pending and not self._stopping and not self._expects():
            self._sleeping.acquire()
        self._resting = False

    def close(self) -> None:
        """Stops the background thread, writes what is left, and closes the file."""
        self._stopping = True
        self._end_sleep()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        try:
            self.flush()
        except Exception as error:
            self.lost += 1
            self.failure = f"{type(error).__name__}: {error}"
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def reopened(self) -> int | None:
        """Returns a descriptor that reads the file, where its name is gone; None where it is not.

        A temporary directory may be cleaned up while a program runs on.
        """
        if self._file is None or os.path.exists(self.path) or not self._file.is_ours():
            return None
        try:
            return os.open(f"/proc/self/fd/{self._file.number}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None  # not Linux

    def abandon(self) -> None:
        """Forgets the file without touching it: for the child after a fork."""
        self._file = None
        self._stopping = True
        self._pending = []
        # A thread that the child does not have may have held them.
        self._writing, self._draining = threading.RLock(), threading.Lock()
