"""Follows the journal of a running load, for the live view."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from hftrace.schema import events, journal


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

    def consumed(self) -> int:
        """Returns how many bytes of the journals have been read."""
        return sum(self._offsets.values())

    def look(self) -> LiveState:
        """Brings the state up to date, or nearer to it where much has been added."""
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
        self._last_sample()
        return self.state

    def _last_sample(self) -> None:
        """Takes resident memory from the last whole line of the samples, which are newer than any edge."""
        for path in self._directory.glob(f"{journal.SAMPLES_PREFIX}*{journal.SUFFIX}"):
            try:
                with open(path, "rb") as handle:
                    handle.seek(max(0, os.fstat(handle.fileno()).st_size - 512))
                    rows = handle.read().split(b"\n")
                sample = json.loads(rows[-2])
                if sample[0] == journal.SAMPLE and sample[2] is not None:
                    self.state.rss_bytes = sample[2] + (sample[3] or 0)
            except (OSError, ValueError, LookupError, TypeError):
                continue

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
            elif kind == journal.END:
                self._open.pop(line[1], None)
                if not self._open:
                    state.tensors_done, state.tensors_total, state.shard = 0, None, None
                    state.phase, state.name = "after", "the load"
            elif kind in (journal.PLACES, journal.MODULES):
                state.tensors_done += events.count(line)
                if state.tensors_total is not None:
                    # Buffers that the checkpoint does not have are placed too.
                    state.tensors_done = min(state.tensors_done, state.tensors_total)
        except (ValueError, LookupError, TypeError):
            return
        if self._open:
            phase, name = self._open[max(self._open)]
            state.phase, state.name = phase, name
