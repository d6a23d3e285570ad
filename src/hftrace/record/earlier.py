"""Threads that were in a load already when the recording began: nothing of that load is recorded.

A load is known by its beginning: what it was asked, which files it found, which model it builds. Of one that
has begun before, what it still does would be taken for another load's, or for a load of its own that was
never asked for anything. So its thread is left alone until it has returned.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hftrace.record.buffers import Buffer


class Busy(Protocol):
    """The state of a thread, as far as it is changed here."""

    busy: bool


class Earlier:
    """Knows which threads these are; asked by hooks only where they would do nothing anyway."""

    def __init__(self) -> None:
        self.codes: dict[int, set[types.CodeType]] = {}
        """By thread, as Python numbers it: the code of what loads there."""
        self.threads: set[int] = set()
        """The same threads as the kernel numbers them, as far as that is known."""

    def look(self, loading: Callable[[], Iterable[types.CodeType]]) -> None:
        """Finds the threads; called before anything is hooked.

        Args:
            loading: Returns the code of every function that is a load.
        """
        frames, own = sys._current_frames(), threading.get_ident()
        if len(frames) < 2:
            return  # nobody else is there
        known = frozenset(loading())
        # No lock is taken for it: a thread that hangs may hold that.
        natives = {
            number: thread.native_id for number, thread in list(getattr(threading, "_active", {}).items())
        }
        for number, found in frames.items():
            frame: types.FrameType | None = found
            while frame is not None and number != own:
                if frame.f_code in known:
                    self.codes.setdefault(number, set()).add(frame.f_code)
                frame = frame.f_back
            native = natives.get(number)
            if number in self.codes and native is not None:
                self.threads.add(native)

    def is_over(self, state: Busy, buffer: Buffer) -> bool:
        """Returns whether this thread's earlier load has just been found to have returned.

        Args:
            state: Of this thread.
            buffer: Its own, which is emptied of what that load has left.
        """
        own = threading.get_ident()
        codes = self.codes.get(own)
        if codes is None:
            return False
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code in codes:
                return False
            frame = frame.f_back
        for _, items in buffer.kinds:
            items.clear()
        del self.codes[own]
        self.threads.discard(threading.get_native_id())
        state.busy = False
        return True
