"""What is read at an edge of a span: memory of host and devices, bytes from storage, the thread's clocks."""

from __future__ import annotations

from typing import NamedTuple

from hftrace.record.device import DeviceMemory
from hftrace.schema import lines
from hftrace.system.memory import HostMemory
from hftrace.system.threads import BytesRead, bytes_read, own_clocks, own_delay_ns

READING = frozenset({"weights", "shard"})
"""Phases of which it is noted how long their thread was ready and had no processor, at 20 µs a span."""


class Counted(NamedTuple):
    """What is counted beside a span's edges, where its phase is one of :data:`READING`."""

    phase: str
    delay: int | None
    process: BytesRead = BytesRead()
    thread: BytesRead = BytesRead()
    """Both of ``weights`` alone, at 20 µs a span: who read, the thread that asked or another one."""


def counted_at(phase: str) -> Counted | None:
    """Returns what has come together by now, where a span of this phase is to say it."""
    if phase not in READING:
        return None
    if phase != "weights":
        return Counted(phase, own_delay_ns())
    return Counted(phase, own_delay_ns(), bytes_read(), bytes_read("thread-self"))


def counted_since(before: Counted) -> dict[str, int]:
    """Returns what came since, as attributes of a span, without what is not known."""
    now = counted_at(before.phase)
    assert now is not None
    pairs = {
        "delay_ns": (before.delay, now.delay),
        "called_bytes": (before.process.called, now.process.called),
        "own_called_bytes": (before.thread.called, now.thread.called),
        "own_storage_bytes": (before.thread.storage, now.thread.storage),
    }
    return {
        name: max(0, after - first)
        for name, (first, after) in pairs.items()
        if first is not None and after is not None
    }


class Edges:
    """Reads the edges of one recording's spans.

    Args:
        exact_peaks: Whether to set the kernel's and the allocators' watermarks back at each edge.
    """

    def __init__(self, *, exact_peaks: bool) -> None:
        self.memory = HostMemory(reset=exact_peaks)
        self.devices = DeviceMemory()
        self._exact_peaks = exact_peaks

    def read(self, *, own: bool = True) -> lines.Edge:
        """Reads everything.

        Args:
            own: Whether the clocks of the calling thread belong to the span: not where it may have begun
                on another one.
        """
        edge = self.host(own=own)
        found = self.devices.read(reset=self._exact_peaks)
        if not found:
            return edge
        return edge._replace(devices={name: lines.Allocator(*figures) for name, figures in found.items()})

    def host(self, *, own: bool = True) -> lines.Edge:
        """Reads the same without the devices."""
        anon, file, shmem, mark, storage_read = self.memory.read()
        if not own:
            return lines.Edge(anon, file, shmem, mark, None, storage_read)
        return lines.Edge(anon, file, shmem, mark, None, storage_read, *own_clocks())
