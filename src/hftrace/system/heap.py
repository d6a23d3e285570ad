"""Asks glibc how much of its heap is free: memory that was freed and not given back to the kernel.

A temporary copy below malloc's mmap threshold (which grows to 32 MB as large
blocks are freed, mallopt(3)) leaves such memory behind: the process stays that
much larger, although nothing uses it. ``mallinfo2`` came with glibc 2.33; on
other systems the figure is None.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import lru_cache


class _Information(ctypes.Structure):
    """``struct mallinfo2`` of ``malloc.h``; all in bytes or counts."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def trim() -> None:
    """Gives what malloc has free back to the kernel, where it can; takes some 0.3 ms."""
    function = _trim()
    if function is not None:
        function(0)


@lru_cache(maxsize=1)
def _trim() -> Callable[[int], int] | None:
    try:
        function: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None  # not glibc
    return function


@lru_cache(maxsize=1)
def _function() -> Callable[[], _Information] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    function.restype = _Information
    function.argtypes = ()
    result: Callable[[], _Information] = function
    return result


def free_heap_bytes() -> int | None:
    """Returns the free bytes in malloc's arenas; None where nobody says.

    It walks the lists of free chunks: 1 µs on the heap of a process that has
    imported transformers, 4 ms once a model of 20,000 tensors has been built
    in it. So it is asked twice a load.

    Part of them may never have been touched, or have been given back by
    ``madvise``: it is an upper bound of what they add to the resident memory.
    """
    function = _function()
    return None if function is None else int(function().fordblks)
