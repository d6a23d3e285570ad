"""Talks to a process that waits: one line of JSON each way."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from hftrace.errors import HftraceError
from hftrace.launch.attaching.target import Target
from hftrace.system import attachment

ANSWER_SECONDS = 5.0
STOP_SECONDS = 120.0
"""At the end models may be looked through once more."""
MAX_READ = 1 << 16


class GoneError(Exception):
    """The process has ended, or has let go."""


class Connection:
    """A connection to a waiting process.

    Args:
        target: The process.
        path: Its socket.

    Raises:
        HftraceError: It does not answer there, or somebody else does.
    """

    def __init__(self, target: Target, path: str) -> None:
        self._target = target
        self._pending = b""
        self._started = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(ANSWER_SECONDS)
            self._socket.connect(path)
            raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, attachment.MAX_CREDENTIALS)
        except OSError as error:
            self._socket.close()
            raise HftraceError(
                f"process {target.pid} does not wait at its socket {path}: {error.strerror or error}"
            ) from None
        if attachment.credentials(raw) != (target.pid, os.geteuid()):
            self._socket.close()
            raise HftraceError(f"somebody else than process {target.pid} answers at {path}")

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def start(self, run: Path, seconds: float) -> dict[str, Any] | None:
        """Lets it record; asked again, waits for the answer for longer.

        Args:
            run: Where.
            seconds: Wait no longer.

        Returns:
            Its answer; None where there is none yet.

        Raises:
            HftraceError: It cannot.
        """
        first = not self._started
        word = {"do": "start", "directory": os.fspath(run.absolute())}
        self._started = True
        try:
            answer = self._ask(word if first else None, seconds)
        except GoneError:
            raise HftraceError(f"process {self._target.pid} ended before it could record anything") from None
        reason = None if answer is None else answer.get("error")
        if reason == "busy":
            raise HftraceError(f"process {self._target.pid} is traced already, by another hftrace attach")
        if reason is not None:
            raise HftraceError(f"process {self._target.pid} cannot be traced: {reason}")
        return answer

    def where(self) -> dict[str, Any] | None:
        """Returns where its threads stand; None where it does not answer now.

        Raises:
            GoneError: It has ended.
        """
        return self._ask({"do": "where"}, ANSWER_SECONDS)

    def stop(self, *, answers: bool) -> bool:
        """Ends the recording; returns whether it has said so.

        Args:
            answers: Whether it has answered when it was asked last.

        Raises:
            GoneError: It has ended.
        """
        answer = self._ask({"do": "stop"}, STOP_SECONDS if answers else ANSWER_SECONDS, wanted="stopped")
        return answer is not None and "stopped" in answer

    def wait(self, seconds: float) -> None:
        """Waits for so long, or until the process is gone.

        Raises:
            GoneError: It is.
        """
        readable, _, _ = select.select([self._socket], [], [], seconds)
        if readable:
            self._read()

    def _ask(
        self, word: dict[str, str] | None, seconds: float, wanted: str | None = None
    ) -> dict[str, Any] | None:
        try:
            if word is not None:
                self._socket.sendall(json.dumps(word).encode("ascii") + b"\n")
        except OSError:
            # What it has said before it hung up is there still: that it is busy.
            if b"\n" not in self._pending:
                self._read()
        until = time.monotonic() + seconds
        while True:
            while b"\n" in self._pending:
                line, _, self._pending = self._pending.partition(b"\n")
                answer = json.loads(line)
                if wanted is None or wanted in answer:
                    return answer if isinstance(answer, dict) else None
            left = until - time.monotonic()
            if left <= 0:
                return None
            self.wait(left)

    def _read(self) -> None:
        try:
            data = self._socket.recv(MAX_READ)
        except OSError:
            data = b""
        if not data:
            raise GoneError
        self._pending += data
