"""A lock that a forked child can take, whatever other threads were doing when it was forked."""

from __future__ import annotations

import os
import threading
from types import TracebackType

MAX_WAIT_SECONDS = 5.0
"""A fork waits no longer for the thread that holds the lock: that one may wait for the forking one."""


class ForkLock:
    """A lock that a thread may take again, for what a process has one of.

    A fork waits until nobody else holds it: in the child no thread would ever
    let go of it, or finish what it was changing.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forking = False
        if hasattr(os, "register_at_fork"):
            # Cannot be taken back: not for a lock of anything that comes and goes.
            os.register_at_fork(
                before=self._before, after_in_parent=self._after, after_in_child=self._after_in_child
            )

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _before(self) -> None:
        if self._lock.acquire(timeout=MAX_WAIT_SECONDS):
            self._forking = True

    def _after(self) -> None:
        if self._forking:
            self._forking = False
            self._lock.release()

    def _after_in_child(self) -> None:
        if self._forking:
            self._forking = False
            self._lock.release()
        else:
            self._lock = threading.RLock()
