"""Reads this process's memory from the kernel: current values, and the exact watermark.

Linux keeps a high-water mark of resident memory (``VmHWM``), and writing ``5``
to ``/proc/self/clear_refs`` sets it back to the current value (proc(5)). Read
and reset at each edge of a span, it gives the exact peak of every span without
any sampling: the peak of a span is the greatest mark seen at any edge from its
start to its end.

The reset also lowers what ``/usr/bin/time`` and ``getrusage`` report for this
process afterwards; the true maximum is the greatest of all marks, and stands
in the trace.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Reading(NamedTuple):
    """Memory of this process at one moment, in bytes; None where the system does not say."""

    rss_anon: int | None
    rss_file: int | None
    rss_shmem: int | None
    mark: int | None
    """The greatest total resident memory since the last reset."""


_NOTHING = Reading(None, None, None, None)
_FIELDS = (b"VmHWM:", b"RssAnon:", b"RssFile:", b"RssShmem:")


class HostMemory:
    """Keeps the two files of ``/proc/self`` open and reads them.

    Args:
        reset: Whether to reset the watermark at each reading. False leaves
            the process's own accounting alone, at the price of the peaks per
            span.
    """

    def __init__(self, *, reset: bool = True) -> None:
        self.exact = False
        self._status: int | None = None
        self._clear: int | None = None
        try:
            self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        if reset:
            try:
                self._clear = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
                os.write(self._clear, b"5")
                self.exact = True
            except OSError:
                self._close_clear()

    def read(self) -> Reading:
        """Reads current values and the mark, then resets the mark (about 20 µs)."""
        if self._status is None:
            return _NOTHING
        try:
            text = os.pread(self._status, 4096, 0)
            values: list[int | None] = []
            for field in _FIELDS:
                start = text.find(field)
                if start < 0:
                    values.append(None)
                    continue
                end = text.find(b" kB", start)
                values.append(int(text[start + len(field) : end]) * 1024)
            if self._clear is not None:
                os.write(self._clear, b"5")
        except (OSError, ValueError):
            return _NOTHING
        mark, anon, file, shmem = values
        return Reading(anon, file, shmem, mark if self.exact else None)

    def _close_clear(self) -> None:
        if self._clear is not None:
            os.close(self._clear)
            self._clear = None

    def close(self) -> None:
        """Closes the files."""
        self._close_clear()
        if self._status is not None:
            os.close(self._status)
            self._status = None
