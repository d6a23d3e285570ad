"""The clocks of threads that read tensors: asked from outside, a few times a second, and at their end.

A span's own thread is not the one that reads where a loader has a pool of threads for it. What happens once
per tensor is not to pay for this, so the journal's thread asks, whenever it empties the buffers, for those
threads that have read since; and a thread that ends says its last figures by itself
(:class:`~hftrace.system.threads.LastWords`).
"""

from __future__ import annotations

import time

from hftrace.record.buffers import Buffer
from hftrace.schema import lines
from hftrace.system.threads import clocks_of

ASK_NS = 100_000_000
"""A thread is asked no sooner again: the kernel divides its time by ticks of up to 10 ms."""
MAX_THREADS = 64
"""Threads that are asked at a time: at 20 µs each, little more than a millisecond."""


def news(threads: list[tuple[Buffer, str]], *, at_end: bool = False) -> list[lines.Line]:
    """Returns a line for each thread that has read since it was asked, or that has read and ended.

    Args:
        threads: All threads that did anything; what they have noted has been taken from them.
        at_end: Whether nobody will ask again.
    """
    found: list[lines.Line] = []
    now = time.monotonic_ns()
    for buffer, _ in list(threads):
        if buffer.has_read is None or buffer.last is None or len(found) >= MAX_THREADS:
            continue
        clocks = buffer.last.clocks
        if clocks is not None:
            buffer.last = None
        elif not buffer.has_read or (now - buffer.asked_ns < ASK_NS and not at_end):
            continue
        else:
            clocks = clocks_of(buffer.thread)
        buffer.has_read, buffer.asked_ns = False, now
        if clocks is not None:
            found.append(lines.Clocks(buffer.thread, *clocks))
    return found
