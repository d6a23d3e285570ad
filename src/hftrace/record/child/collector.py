"""What Python's collector of cycles does during a load: a graph of many modules makes it walk them all."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

OFF, FREEZE = "off", "freeze"


@contextlib.contextmanager
def collecting(how: str | None) -> Iterator[None]:
    """Lets the collector rest during a load, or leave alone what was there before it.

    Args:
        how: ``off``, ``freeze``, or None for what Python does by itself.
    """
    if how == OFF:
        gc.disable()
    elif how == FREEZE:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if how == OFF:
            gc.enable()
        elif how == FREEZE:
            gc.unfreeze()
