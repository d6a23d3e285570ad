"""The lazy tensors that are being read right now: asked from outside of the threads that read them.

A read is noted when it is over. Of one that is under way when the process is killed the frame of our handler
is all there is: it has the tensor, and when the read began. Looking there costs the reading threads nothing.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

from hftrace.record.frames import FRAME_FILE

READERS = {"_materialize_copy": 0, "shard_tensor": 1}
"""Functions that read a lazy tensor, and which argument it is."""
MAX_DEPTH = 12
"""The handler is no further from the innermost frame: what lies between is torch's and safetensors' own."""
MAX_THREADS = 64


class Readers:
    """Looks at the threads that read."""

    def __init__(self) -> None:
        self.expected = False
        """Whether lazy tensors have been named: before, there is nothing to look for."""
        self.handed = False
        """Whether something handed tensors out that may have read them before."""
        self._last: list[list[int]] = []

    def look(self) -> list[list[int]] | None:
        """Returns thread, identity of the tensor and start of each open read; None for no news."""
        if not self.expected or not getattr(sys, "_is_gil_enabled", _always)():
            return None
        numbers = {thread.ident: thread.native_id for thread in threading.enumerate()}
        found: list[list[int]] = []
        for ident, frame in sys._current_frames().items():
            number = numbers.get(ident)
            read = _open_read(frame) if number is not None else None
            if number is not None and read is not None and len(found) < MAX_THREADS:
                found.append([number, *read])
        if found == self._last:
            return None
        self._last = found
        return found


def _always() -> bool:
    return True


def _open_read(frame: FrameType | None) -> tuple[int, int] | None:
    for _ in range(MAX_DEPTH):
        if frame is None:
            return None
        if frame.f_code.co_filename == FRAME_FILE and frame.f_code.co_name == "call":
            return _of_handler(frame.f_locals)
        frame = frame.f_back
    return None


def _of_handler(names: dict[str, Any]) -> tuple[int, int] | None:
    """Returns the tensor's identity and the start, by the names in a frame of ``hooks/events.py``."""
    at = READERS.get(str(names.get("hook")).rpartition(":")[2].rpartition(".")[2])
    started = names.get("started")
    if at is None or not isinstance(started, int) or "ended" in names:
        return None
    given = names.get("args", ())
    tensor = names.get(f"value{at}", given[at] if len(given) > at else None)
    return (id(tensor), started) if tensor is not None else None
