"""Reads this process's memory from the kernel: current values, the exact watermark, bytes from storage.

Linux keeps a high-water mark of resident memory (``VmHWM``), and writing ``5``
to ``/proc/self/clear_refs`` sets it back to the current value (proc(5)). Read
and reset at each edge of a span, it gives the exact peak of every span without
any sampling: the peak of a span is the greatest mark seen at any edge from its
start to its end.

The reset also lowers what ``/usr/bin/time`` and ``getrusage`` report for this
process afterwards; the true maximum is the greatest of all marks, and stands
in the trace.

``read_bytes`` of ``/proc/self/io`` counts what this process made the kernel
fetch from a block device, read calls and page faults of memory maps alike. It
counts the whole process: of two threads' spans at one time each has the other
one's bytes too. What comes from the page cache, from tmpfs or over the network
is not in it. Reading it makes an edge 3 µs dearer (measured: 17 instead of 14).
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import NamedTuple

from hftrace.system.descriptors import Descriptor


class Reading(NamedTuple):
    """Memory of this process at one moment, in bytes; None where the system does not say."""

    rss_anon: int | None
    rss_file: int | None
    rss_shmem: int | None
    mark: int | None
    """The greatest total resident memory since the last reset."""
    storage_read: int | None
    """What this process has caused to be fetched from storage so far."""


_NOTHING = Reading(None, None, None, None, None)
_FIELDS = (b"VmHWM", b"RssAnon", b"RssFile", b"RssShmem")
_ALL_FIELDS = re.compile(rb".*?\n".join(rb"%s:[ \t]*(\d+) kB" % name for name in _FIELDS), re.DOTALL)
"""In the order in which Linux has them: one search is a third of what four take."""
_STORAGE = b"\nread_bytes: "


def _field(text: bytes, name: bytes) -> int | None:
    """Returns a field of ``/proc/self/status`` in bytes; None where it is not there."""
    found = re.search(rb"\n%s:[ \t]*(\d+) kB" % name, text)
    return int(found.group(1)) * 1024 if found is not None else None


class HostMemory:
    """Keeps the three files of ``/proc/self`` open and reads them.

    Args:
        reset: Whether to reset the watermark at each reading. False leaves
            the process's own accounting alone, at the price of the peaks per
            span.
    """

    def __init__(self, *, reset: bool = True) -> None:
        self.exact = False
        self._reset = reset
        self._status: Descriptor | None = None
        self._clear: Descriptor | None = None
        self._io: Descriptor | None = None
        self._open()

    def _open(self) -> None:
        try:
            self._status = Descriptor.open("/proc/self/status", os.O_RDONLY)
        except OSError:
            return
        with contextlib.suppress(OSError):  # a kernel without I/O accounting
            self._io = Descriptor.open("/proc/self/io", os.O_RDONLY)
        if self._reset:
            try:
                self._clear = Descriptor.open("/proc/self/clear_refs", os.O_WRONLY)
                os.write(self._clear.number, b"5")
                self.exact = True
            except OSError:
                self._close_clear()

    def read(self) -> Reading:
        """Reads current values and the mark, then resets the mark (about 20 µs)."""
        if self._status is not None and not self._status.is_ours():
            self.close()  # the program has closed them; a write would go into a file of its own
            self._open()
        reading = self.current()
        if self._clear is not None and reading is not _NOTHING and self._clear.is_ours():
            try:
                os.write(self._clear.number, b"5")
            except OSError:
                return _NOTHING
        return reading

    def current(self) -> Reading:
        """Reads the same and leaves the mark alone, for use between two edges."""
        if self._status is None:
            return _NOTHING
        try:
            text = os.pread(self._status.number, 4096, 0)
        except OSError:
            return _NOTHING
        found = _ALL_FIELDS.search(text)
        if found is not None:
            values: list[int | None] = [int(value) * 1024 for value in found.groups()]
        else:
            values = [_field(text, name) for name in _FIELDS]
        mark, anon, file, shmem = values
        return Reading(anon, file, shmem, mark if self.exact else None, self._storage_read())

    def _storage_read(self) -> int | None:
        if self._io is None:
            return None
        try:
            text = os.pread(self._io.number, 512, 0)
            start = text.index(_STORAGE) + len(_STORAGE)
            return int(text[start : text.index(b"\n", start)])
        except (OSError, ValueError):
            return None

    def _close_clear(self) -> None:
        if self._clear is not None:
            self._clear.close()
            self._clear = None

    def close(self) -> None:
        """Closes the files."""
        self._close_clear()
        for descriptor in (self._status, self._io):
            if descriptor is not None:
                descriptor.close()
        self._status = self._io = None
