"""Follows the journal of a running load, for the live view."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from hftrace.schema import journal


@dataclass
class LiveState:
    """What a load is doing now."""

    started: float = field(default_factory=time.monotonic)
    phase: str = "start"
    name: str = "Python"
    tensors_done: int = 0
    tensors_total: int | None = None
    shard: str | None = None
    rss_bytes: int | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self.started


class JournalFollower:
    """Reads what has been added to a run's journals since the last look.

    Args:
        directory: The run's directory.
    """

    def __init__(self, directory: Path) -> None:
        self.state = LiveState()
        self._directory = directory
        self._offsets: dict[Path, int] = {}
        self._open: dict[int, tuple[str, str]] = {}

    def look(self) -> LiveState:
        """Brings the state up to date."""
        for path in self._directory.glob(f"{journal.JOURNAL_PREFIX}*{journal.SUFFIX}"):
            offset = self._offsets.get(path, 0)
            try:
                with open(path, "rb") as handle:
                    handle.seek(offset)
                    data = handle.read(4 << 20)
            except OSError:
                continue
            end = data.rfind(b"\n") + 1
            self._offsets[path] = offset + end
            for raw in data[:end].splitlines():
                self._line(raw)
        return self.state

    def _line(self, raw: bytes) -> None:
        state = self.state
        try:
            line = json.loads(raw)
            kind = line[0]
            if kind == journal.BEGIN:
                self._open[line[1]] = (line[3], line[4])
                attributes = line[9]
                if attributes.get("tensors"):
                    state.tensors_total = attributes["tensors"]
                if attributes.get("file"):
                    state.shard = attributes["file"]
                edge = line[8]
                if edge[0] is not None:
                    state.rss_bytes = edge[0] + (edge[1] or 0)
            elif kind == journal.END:
                self._open.pop(line[1], None)
            elif kind in (journal.PLACES, journal.MODULES):
                state.tensors_done += len(line[2]) // 3
        except (ValueError, LookupError, TypeError):
            return
        if self._open:
            phase, name = self._open[max(self._open)]
            state.phase, state.name = phase, name


def journal_exists(directory: Path) -> bool:
    """Returns whether any process has begun a journal there."""
    return any(name.startswith(journal.JOURNAL_PREFIX) for name in os.listdir(directory))
