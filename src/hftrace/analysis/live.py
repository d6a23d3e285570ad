"""What a load that still runs is known to do: what the live view draws, and what can be said of it honestly.

:mod:`hftrace.launch.progress` fills these objects while the journal grows. Times are readings of the
monotonic clock, in nanoseconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MOVED_SHARE = 0.5
"""Bytes of weights count as moved, and not as mapped alone, where at least so many were seen to move: as new
pages of memory, as memory of a device, as reads from storage. A mapped tensor that nobody touches moves none;
a cast to half the width still maps every page of what it reads."""
MIN_SHARE = 0.05
MIN_SECONDS = 1.0
"""What is left of the weights, and a rate, is said once so much is read, in so much time: the first tensors
say little."""


@dataclass
class LiveShard:
    """A weight file of the load."""

    name: str
    size: int | None
    """Stored bytes of its tensors; of the file, until they are known; None if unknown."""
    done: int = 0
    """Bytes of those that were read, or placed where the loader does not tell reading from placing."""
    start_ns: int | None = None
    end_ns: int | None = None
    """Of the last tensor so far."""
    finished: bool = False

    @property
    def seconds(self) -> float:
        """How long it was read so far."""
        if self.start_ns is None or self.end_ns is None:
            return 0.0
        return max(0, self.end_ns - self.start_ns) / 1e9


@dataclass
class LiveMemory:
    """The last reading of the process's memory, in bytes."""

    anonymous: int
    file: int
    shared: int = 0


@dataclass(frozen=True)
class LiveLimit:
    """What memory is held against: ``option`` (anonymous alone), ``cgroup`` or ``ram``."""

    size: int
    kind: str


@dataclass(frozen=True)
class EndedPhase:
    """A phase that has ended: a span of a load's own, or one outside of any."""

    phase: str
    name: str
    duration_ns: int
    memory: LiveMemory | None


@dataclass(frozen=True)
class LastTime:
    """What the last trace of the same load says: facts of that one, and what this one is held against."""

    returned_ns: int
    """From the start of its process until the load returned."""
    after_weights_ns: int | None
    """Of that, what followed its weights; None where it read none."""
    peak_bytes: int | None
    """The most that its process held."""
    device_peaks: Mapping[str, int] = field(default_factory=dict)
    cache: str | None = None
    """``cold``, ``warm`` or ``partly``: what of its files was in the page cache; None if unknown."""


@dataclass
class LiveProcess:
    """One process that loads: what its journal says so far."""

    rank: int = 0
    pid: int = 0
    phase: str = "start"
    name: str = "Python"
    phases: dict[str, int] = field(default_factory=dict)
    """Time that each phase took by itself on the main thread, in the order in which they came; ``load`` is
    the loader's own code between its calls."""
    since_ns: int | None = None
    """When the main thread last went from one phase to another."""
    weights_ns: int | None = None
    """When reading the weights of the load that is open began."""
    shards: list[LiveShard] = field(default_factory=list)
    tensors_done: int = 0
    tensors_total: int | None = None
    waits_for: list[str] = field(default_factory=list)
    """Hosts whose answers are waited for."""
    memory: LiveMemory | None = None
    device_bytes: dict[str, int] = field(default_factory=dict)
    """Allocated, by device."""
    moved_bytes: int = 0
    """Bytes that were seen to move since the weights began: no more than what did."""
    loads: int = 0
    """Loads that have returned."""

    @property
    def bytes_done(self) -> int:
        """Bytes of all shards that were read."""
        return sum(shard.done for shard in self.shards)

    @property
    def bytes_total(self) -> int | None:
        """Bytes of all shards; None where one is not known."""
        sizes = [shard.size for shard in self.shards]
        return None if not sizes or None in sizes else sum(size or 0 for size in sizes)

    @property
    def moved(self) -> bool:
        """Whether the bytes of the weights are known to move, so that a rate means something."""
        return self.bytes_done > 0 and self.moved_bytes >= MOVED_SHARE * self.bytes_done

    def phases_now(self, now_ns: int) -> dict[str, int]:
        """Returns the time of each phase, the open one until now."""
        phases = dict(self.phases)
        if self.since_ns is not None:
            phases[self.phase] = phases.get(self.phase, 0) + max(0, now_ns - self.since_ns)
        return phases


@dataclass
class LiveState:
    """What a load is doing now: of several processes, one each."""

    started: float = field(default_factory=time.monotonic)
    processes: list[LiveProcess] = field(default_factory=lambda: [LiveProcess()])
    limit: LiveLimit | None = None
    ended: list[EndedPhase] = field(default_factory=list)
    """Phases of the first process that have ended; whoever shows them takes them out."""
    last_time: LastTime | None = None
    """What is known of the same load from before."""
    ending: bool = False
    """Whether the process is gone, and its trace is being made."""

    @property
    def first(self) -> LiveProcess:
        """The process that is looked at where there is room for one."""
        return self.processes[0]

    @property
    def elapsed(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self.started


def rate(shards: Sequence[LiveShard], process: LiveProcess) -> float | None:
    """Returns the bytes per second at which shards were read; None where no bytes are known to have moved."""
    starts = [shard.start_ns for shard in shards if shard.start_ns is not None]
    ends = [shard.end_ns for shard in shards if shard.end_ns is not None]
    done, size = sum(shard.done for shard in shards), sum(shard.size or 0 for shard in shards)
    if not process.moved or done < MIN_SHARE * size or not starts or not ends or max(ends) <= min(starts):
        return None
    return done / (max(ends) - min(starts)) * 1e9


def remaining_seconds(process: LiveProcess, now_ns: int) -> float | None:
    """Returns about how long the rest of the weights will take, by their bytes; None where that is unknown.

    What comes after the weights is not in it.
    """
    total, done = process.bytes_total, process.bytes_done
    if process.weights_ns is None or not total or done >= total or done < MIN_SHARE * total:
        return None
    seconds = (now_ns - process.weights_ns) / 1e9
    return None if seconds < MIN_SECONDS else seconds * (total - done) / done


def seconds_to_return(state: LiveState, now_ns: int) -> float | None:
    """Returns about how long it is until the load returns, by the last time; None where that says nothing.

    While weights are read at a known pace, they count as they go now, and what follows them as it was.
    """
    last = state.last_time
    if last is None or len(state.processes) > 1 or state.first.loads:
        return None
    weights = remaining_seconds(state.first, now_ns)
    if weights is not None and last.after_weights_ns is not None:
        return weights + last.after_weights_ns / 1e9
    left = last.returned_ns / 1e9 - state.elapsed
    return left if left > 0 else None
