"""Follows the journals of a run while they grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hftrace.schema import journal

MAX_READ_BYTES = 4 << 20
"""So much of one journal is taken at a time: whoever looks ten times a second must not stand still."""


class JournalTail:
    """Reads each line of a run's journals once, when it is whole, and hands it to all who listen.

    Args:
        run: The run's directory.
        pid: Of the process whose journal is followed; None for those of all.
    """

    def __init__(self, run: Path, pid: int | None = None) -> None:
        self._run = run
        whose = "*" if pid is None else f"*-{pid}"
        self._pattern = f"{journal.JOURNAL_PREFIX}{whose}{journal.SUFFIX}"
        self._offsets: dict[Path, int] = {}
        self._listeners: list[Callable[[bytes], None]] = []
        self.path: Path | None = None
        """The journal whose line is handed on now."""

    def listen(self, listener: Callable[[bytes], None]) -> None:
        """Calls ``listener`` with each line from now on, as it stands in the file, without its end."""
        self._listeners.append(listener)

    def poll(self) -> bool:
        """Hands on what has been added since the last time; returns whether there was anything."""
        found = False
        for path in self._run.glob(self._pattern):
            offset = self._offsets.get(path, 0)
            try:
                with open(path, "rb") as handle:
                    handle.seek(offset)
                    data = handle.read(MAX_READ_BYTES)
                    # A single line may be longer.
                    while b"\n" not in data and (more := handle.read(MAX_READ_BYTES)):
                        data += more
            except OSError:
                continue
            end = data.rfind(b"\n") + 1
            self._offsets[path] = offset + end
            self.path = path
            for raw in data[:end].splitlines():
                found = True
                for listener in self._listeners:
                    listener(raw)
        return found

    def catch_up(self) -> None:
        """Hands on all that there is by now."""
        while self.poll():
            pass


def last_line(path: Path, max_bytes: int = 512) -> bytes | None:
    """Returns the last whole line of a file of short lines; None where there is none."""
    try:
        with open(path, "rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(0, size - max_bytes))
            *whole, _ = handle.read().split(b"\n")
    except OSError:
        return None
    return whole[-1] if whole else None
