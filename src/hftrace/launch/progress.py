"""Says what a running load is doing, for the live view."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from hftrace.launch.tail import JournalTail, last_line
from hftrace.replay.events import decode
from hftrace.schema import codec, journal, lines

_HEARD_KINDS = frozenset({journal.BEGIN, journal.END, journal.PLACES, journal.MODULES})


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
    """Keeps a :class:`LiveState` from what a run's journals and samples say.

    Args:
        run: The run's directory.
        tail: Of its journals.
    """

    def __init__(self, run: Path, tail: JournalTail) -> None:
        self.state = LiveState()
        self._run = run
        self._tail = tail
        self._open: dict[int, tuple[str, str]] = {}
        self._hosts: dict[int, str] = {}
        """For each open span that waits for an answer, or for the time to ask again: which host's."""
        self._asked_by: dict[int, int | None] = {}
        """For each open request, the span that sent it."""
        tail.listen(self._add)

    def poll(self) -> LiveState:
        """Brings the state up to date, or nearer to it where much has been added."""
        self._tail.poll()
        self._last_sample()
        return self.state

    @property
    def is_loading(self) -> bool:
        """Whether a load is open, as far as the journals have been read."""
        return any(phase == "load" for phase, _ in self._open.values())

    def waiting_for(self) -> list[str]:
        """Returns the hosts whose answers are waited for."""
        return sorted(set(self._hosts.values()))

    def _last_sample(self) -> None:
        """Takes resident memory from the last whole line of the samples, which are newer than any edge."""
        for path in self._run.glob(f"{journal.SAMPLES_PREFIX}*{journal.SUFFIX}"):
            raw = last_line(path)
            line = codec.parse(raw) if raw is not None else None
            if isinstance(line, lines.Sample) and line.anonymous is not None:
                self.state.rss_bytes = line.anonymous + (line.file or 0)

    def _add(self, raw: bytes) -> None:
        # Most lines are of other kinds, and long.
        line = codec.parse(raw) if codec.kind_of(raw) in _HEARD_KINDS else None
        # A damaged line makes the view wrong, and is no reason to end a load.
        with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
            self._apply(line)

    def _apply(self, line: lines.Line | None) -> None:
        state = self.state
        if isinstance(line, lines.Begin):
            self._open[line.span] = (line.phase, line.name)
            host = line.attributes.get("host")
            if line.attributes.get("request") is True and isinstance(host, str):
                self._asked_by[line.span] = line.parent
                self._hosts[line.span] = host
            state.tensors_total = line.attributes.get("tensors") or state.tensors_total
            state.shard = line.attributes.get("file") or state.shard
        elif isinstance(line, lines.End):
            self._open.pop(line.span, None)
            self._answered(line)
            if not self._open:
                state.tensors_done, state.tensors_total, state.shard = 0, None, None
                state.phase, state.name = "after", "the load"
        elif isinstance(line, lines.Events):
            state.tensors_done += len(decode(line))
            if state.tensors_total is not None:
                # Buffers that the checkpoint does not have are placed too.
                state.tensors_done = min(state.tensors_done, state.tensors_total)
        if self._open:
            state.phase, state.name = self._open[max(self._open)]

    def _answered(self, line: lines.End) -> None:
        """Where a request ends, its download waits for the body; after a failure all wait to ask again."""
        host = self._hosts.pop(line.span, None)
        asker = self._asked_by.pop(line.span, None)
        if host is None or asker is None or asker not in self._open:
            return
        if line.status != "ok" or self._open[asker][0] == "download":
            self._hosts[asker] = host
        else:
            self._hosts.pop(asker, None)
