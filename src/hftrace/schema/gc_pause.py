"""Pauses the garbage collector while much is built and nothing becomes garbage."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused_collector() -> Iterator[None]:
    """Keeps the collector from walking a million new objects again and again.

    In a process that holds a model of 100,000 tensors that walking took most
    of the time of making its trace.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
