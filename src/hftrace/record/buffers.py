"""Per-thread lists for what happens once per tensor.

The rules of the hot path (DESIGN.md section 5, promise 4): two readings of
the clock, integers and strings that exist already, one ``list.extend`` of a
flat list. ``extend`` and the slicing in :meth:`ThreadBuffers.drain` are each
one step under the interpreter's lock, so no lock of ours is needed, and a
flat list of integers and strings is nothing that the garbage collector walks.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

from hftrace.schema import events, journal
from hftrace.system.threads import LastWords


class Buffer:
    """The lists of one thread."""

    __slots__ = (
        "asked_ns",
        "converts",
        "has_read",
        "initializes",
        "kinds",
        "last",
        "modules",
        "moves",
        "places",
        "reads",
        "thread",
        "unpacks",
    )

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.last: LastWords | None = LastWords()
        """What the thread has used when it ends; None once that has been said."""
        self.has_read: bool | None = None
        """Whether it has read tensors since its clocks were asked for; None where it never did."""
        self.asked_ns = 0
        """When its clocks were asked for, by the monotonic clock."""
        self.reads: list[Any] = []
        self.converts: list[Any] = []
        self.places: list[Any] = []
        self.modules: list[Any] = []
        self.moves: list[Any] = []
        self.initializes: list[Any] = []
        self.unpacks: list[Any] = []
        self.kinds: tuple[tuple[str, list[Any]], ...] = (
            (journal.READS, self.reads),
            (journal.CONVERTS, self.converts),
            (journal.PLACES, self.places),
            (journal.MODULES, self.modules),
            (journal.MOVES, self.moves),
            (journal.INITIALIZES, self.initializes),
            (journal.UNPACKS, self.unpacks),
        )
        """Each list with the kind of its journal line; the lists themselves are never replaced."""


class ThreadBuffers(threading.local):
    """Gives each thread its own :class:`Buffer`; ``threading.local`` runs ``__init__`` once per thread.

    Args:
        registry: Where each new buffer is also kept, so that the journal's
            thread can empty all of them.
    """

    def __init__(self, registry: list[tuple[Buffer, str]]) -> None:
        self.buffer = Buffer(threading.get_native_id())
        self.sentinel = LastWords.Sentinel(self.buffer.last)
        registry.append((self.buffer, threading.current_thread().name))


def drain(registry: list[tuple[Buffer, str]], left_out: Collection[int] = ()) -> list[bytes]:
    """Takes what all threads have buffered, as journal lines that are encoded already.

    Args:
        registry: The buffers, with the names of their threads.
        left_out: Threads of which nothing is recorded: what they have buffered is forgotten.
    """
    lines: list[bytes] = []
    for buffer, _ in list(registry):
        if buffer.thread in left_out:
            for _, items in buffer.kinds:
                items.clear()
            continue
        for kind, items in buffer.kinds:
            if items:
                count = len(items)
                chunk = items[:count]
                del items[:count]
                if items is buffer.reads:
                    buffer.has_read = True
                lines.append(events.encode(kind, buffer.thread, chunk))
    return lines
