"""What is read at an edge of a span: memory of host and devices, bytes from storage, the thread's clocks."""

from __future__ import annotations

from hftrace.record.device import DeviceMemory
from hftrace.schema import lines
from hftrace.system.memory import HostMemory
from hftrace.system.threads import own_clocks, own_delay_ns

READING = frozenset({"weights", "shard"})
"""Phases of which it is noted how long their thread was ready and had no processor, at 20 µs a span."""


def delay_at(phase: str) -> int | None:
    """Returns what has come together by now, where a span of this phase is to say it."""
    return own_delay_ns() if phase in READING else None


def delay_since(before: int) -> dict[str, int]:
    """Returns what came since, as an attribute of a span; nothing where it is not known."""
    delay = own_delay_ns()
    return {} if delay is None else {"delay_ns": max(0, delay - before)}


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
