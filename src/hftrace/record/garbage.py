"""Watches Python's garbage collector while a load is open, without a single frame of Python.

``gc.callbacks`` are called at both ends of every collection, and a collection
may begin at any allocation: of the host, or of our own code while it holds a
lock. So what is called here takes no lock and writes nothing.

**Why no function of Python.** A collection of a large process takes a tenth of
a second, and a Ctrl-C of the user mostly falls into it where collections are
most of a load. The interpreter raises it in the next frame that it enters.
Were that the frame of a callback, the collector would print the
``KeyboardInterrupt`` as "ignored" and the load would go on: measured, ten of
ten were lost. The same holds for every signal handler that raises. So the
callbacks are put together from what the interpreter has in C:

* ``partial(getattr, clocks)`` is called as ``getattr(clocks, "start", info)``. That reads a property, whose
  getter draws the next item of an iterator, which reads the clock and appends what it read to a list.
* ``partial(setattr, marks)`` is called as ``setattr(marks, "stop", info)``. That sets a property, whose
  setter appends what the collector says of itself to the same list.

Nothing of this refers to the recorder or to the host's objects. It also runs
for the frequent small collections of young objects, which :meth:`Watch.drain`
leaves out; one of these costs two microseconds more, and a load has one for
every ten tensors or so.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import operator
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hftrace.schema import journal

FULL = 2
"""The generation whose collection walks every object of the process."""
RECENT = 1000
"""Full collections that are remembered once they are in the journal."""
NEAR_THRESHOLD = 0.9
"""A collection that the interpreter begins by itself begins at this share of the threshold at least. From
3.12 on it does so a few instructions late, when a few of the objects that were counted may be gone again."""
_forget: Any = operator.is_
"""Compares its two arguments, which changes nothing."""


class _Marks(list[Any]):
    """What the callbacks noted, in order: a tuple at a start, a time at an end and the collector's words."""

    # What the collector says before it has begun is nothing.
    start = property(None, _forget)
    stop = property(None, list.append)


class _Clocks:
    """Notes the time, in nanoseconds, whenever one of its two attributes is read."""

    __slots__ = ("began", "ended")
    start = property(operator.methodcaller("began"))
    stop = property(operator.methodcaller("ended"))

    def __init__(self, marks: _Marks) -> None:
        # A tuple of the time, the thread, how many objects wait in each generation, and whether the
        # interpreter collects by itself.
        reads = (time.monotonic_ns, threading.get_native_id, gc.get_count, gc.isenabled)
        self.began = _each(marks, zip(*map(_endless, reads), strict=False))
        self.ended = _each(marks, _endless(time.monotonic_ns))


def _endless(read: Callable[[], Any]) -> Iterable[Any]:
    """Yields what ``read`` returns, for ever."""
    return iter(read, None)


def _each(marks: _Marks, values: Iterable[Any]) -> Callable[[], Any]:
    """Returns a callable that appends the next of ``values``."""
    return map(marks.append, values).__next__


class Watch:
    """Notes the full collections between :meth:`install` and :meth:`remove`."""

    def __init__(self) -> None:
        self._marks = _Marks()
        self._recent: collections.deque[tuple[int, int]] = collections.deque(maxlen=RECENT)
        self._callbacks = (
            functools.partial(getattr, _Clocks(self._marks)),
            functools.partial(setattr, self._marks),
        )

    def install(self) -> None:
        """Begins to watch."""
        gc.callbacks.extend(self._callbacks)

    def remove(self) -> None:
        """Ends watching, and leaves what others have put into ``gc.callbacks`` alone; may be called twice."""
        for callback in self._callbacks:
            # Someone else may have emptied the list meanwhile.
            with contextlib.suppress(ValueError):
                gc.callbacks.remove(callback)

    def drain(self) -> list[list[Any]]:
        """Takes the full collections that have ended since the last call, as journal lines."""
        count = len(self._marks)
        while count and type(self._marks[count - 1]) is not dict:
            count -= 1  # under way: its end comes with the next call
        events: dict[int, list[int]] = {}
        for (started, thread, counts, enabled), ended, mark in _full(self._marks[:count]):
            automatic = int(enabled and _due(counts))
            events.setdefault(thread, []).extend((mark["collected"], automatic, started, ended))
            self._recent.append((started, ended))
        # Last: whoever reads both lists meanwhile finds a collection in one of them at least.
        del self._marks[:count]
        return [[journal.COLLECTIONS, thread, items] for thread, items in events.items()]

    def forget(self) -> None:
        """Forgets what was noted; nothing may be installed any more."""
        self._marks.clear()
        self._recent.clear()

    def between(self, start: int, end: int) -> list[tuple[int, int]]:
        """Returns start and end of the full collections of late that lie between two times."""
        found = {(begun[0], ended) for begun, ended, _ in _full(list(self._marks))}
        found.update(self._recent)
        return sorted(each for each in found if start <= each[0] and each[1] <= end)


def _full(marks: list[Any]) -> Iterator[tuple[tuple[Any, ...], int, dict[str, Any]]]:
    """Yields the full collections that have ended: what was noted at the start, the end, and what was said.

    A process collects once at a time, so starts and ends alternate, whatever the threads. What had
    begun when the watch was installed has no start.
    """
    for at, mark in enumerate(marks):
        if type(mark) is dict and mark["generation"] == FULL and at > 1 and type(marks[at - 2]) is tuple:
            yield marks[at - 2], marks[at - 1], mark


def _due(counts: tuple[int, ...]) -> bool:
    """Returns whether the interpreter itself begins a full collection where so many objects wait.

    A call of ``gc.collect`` begins one at any time, and sets all counts back.
    """
    young, _, old = gc.get_threshold()
    return counts[0] > NEAR_THRESHOLD * young and counts[2] > old
