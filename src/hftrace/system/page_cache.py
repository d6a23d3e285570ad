"""The kernel's page cache: how much of a file is in it, and how to drop or fill it.

Residency comes from the system call ``cachestat`` (Linux 6.5, number 451 on
every architecture): one call of a few microseconds, whatever the file's size.
On an older kernel ``mincore`` is asked page by page (10 to 20 ms for each GB).
Both tell the truth only to who owns the file or may write to it; anyone else,
and any other system, gets None, which the trace shows as unknown.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

_CACHESTAT = 451
_BLOCK_BYTES = 8 << 20
_MINCORE_PIECE = 1 << 30
"""Bytes of a file that are mapped and asked for at a time; a multiple of every page size."""
_MAP_FAILED = ctypes.c_void_p(-1).value


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Statistics(ctypes.Structure):
    _fields_ = (
        ("cached", ctypes.c_uint64),
        ("dirty", ctypes.c_uint64),
        ("writeback", ctypes.c_uint64),
        ("evicted", ctypes.c_uint64),
        ("recently_evicted", ctypes.c_uint64),
    )


@lru_cache(maxsize=1)
def _library() -> Any:
    """Returns the C library with the types of what is called here, or None where it is not Linux's."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
        library.syscall.restype = ctypes.c_long
        library.mmap.restype = ctypes.c_void_p
        library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
        library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    except (OSError, AttributeError):
        return None
    return library


def cachestat_pages(file: int, size: int) -> int:
    """Returns how many pages of an open file the kernel holds, by ``cachestat``.

    Args:
        file: A descriptor open for reading.
        size: The file's size in bytes.

    Raises:
        OSError: The kernel does not have the call (``ENOSYS``), or refuses to say.
    """
    library = _library()
    if library is None:
        raise OSError(errno.ENOSYS, "no cachestat on this system")
    statistics = _Statistics()
    everything = _Range(0, size)
    if library.syscall(_CACHESTAT, file, ctypes.byref(everything), ctypes.byref(statistics), 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(statistics.cached)


def mincore_pages(file: int, size: int) -> int | None:
    """Returns the same by ``mincore``; None where the kernel would not tell this user the truth.

    To anyone who neither owns the file nor may write to it, the kernel calls
    every page resident.

    Args:
        file: A descriptor open for reading.
        size: The file's size in bytes.

    Raises:
        OSError: The file cannot be mapped, or the system does not have the call.
    """
    library = _library()
    if library is None:
        raise OSError(errno.ENOSYS, "no mincore on this system")
    if os.geteuid() not in (0, os.fstat(file).st_uid) and not os.access(f"/proc/self/fd/{file}", os.W_OK):
        return None
    page = mmap.PAGESIZE
    resident = 0
    for offset in range(0, size, _MINCORE_PIECE):
        length = min(_MINCORE_PIECE, size - offset)
        # mmap of the standard library does not tell its address where the map is read-only.
        address = library.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, file, offset)
        if address is None or address == _MAP_FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        try:
            answer = ctypes.create_string_buffer(-(-length // page))
            if library.mincore(address, length, answer) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            library.munmap(address, length)
        # Only the lowest bit of each byte says something.
        resident += answer.raw.translate(_LOWEST_BIT).count(1)
    return resident


_LOWEST_BIT = bytes(value & 1 for value in range(256))
METHODS: tuple[Callable[[int, int], int | None], ...] = (cachestat_pages, mincore_pages)
"""Asked in this order, until one has an answer."""


def resident_share(path: str) -> float | None:
    """Returns the share of a file that is in the page cache, 0 to 1; None if unknown."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None  # whoever opens a pipe waits for its other end
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return resident_share_of(file, os.fstat(file).st_size)
    except OSError:
        return None
    finally:
        os.close(file)


def resident_share_of(file: int, size: int) -> float | None:
    """Returns the same of an open file.

    Args:
        file: A descriptor open for reading.
        size: The file's size in bytes.
    """
    for method in METHODS if size else ():
        try:
            pages = method(file, size)
        except (OSError, ValueError, AttributeError):
            continue
        return None if pages is None else min(1.0, pages * mmap.PAGESIZE / size)
    return None


def evict(files: Iterable[Path]) -> None:
    """Writes out what is not on storage yet, and asks the kernel to drop the files' pages.

    The kernel keeps pages that a process has mapped and touched, and all of
    those of a file system that lives in memory: only the residency afterwards
    says what was dropped.

    Raises:
        OSError: A file cannot be read, or the system has no such call.
    """
    if not hasattr(os, "posix_fadvise"):
        raise OSError("this system has no call that drops a file from the page cache")
    for path in files:
        with open(path, "rb") as file:
            # Pages that are not written yet would stay.
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(files: Iterable[Path]) -> None:
    """Reads files from beginning to end.

    Raises:
        OSError: A file cannot be read.
    """
    block = bytearray(_BLOCK_BYTES)
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(block):
                pass


def resident(files: Iterable[Path]) -> float | None:
    """Returns the share of the files' bytes in the page cache, 0 to 1; None if unknown."""
    total = 0
    held = 0.0
    for path in files:
        try:
            size = path.stat().st_size
        except OSError:
            return None
        share = resident_share(str(path)) if size else 0.0
        if share is None:
            return None
        total += size
        held += share * size
    return held / total if total else None
