"""Files that are compressed where their name says so."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

LEVEL = 6
"""Of gzip: the levels above take twice the time for a few percent."""


@contextmanager
def packed(stream: BinaryIO, target: str) -> Iterator[BinaryIO]:
    """Gives what to write to.

    Args:
        stream: Where it goes.
        target: The file's name; one that ends in ``.gz`` is compressed, with nothing in it that changes.
    """
    if target.lower().endswith(".gz"):
        with gzip.GzipFile("", "wb", LEVEL, stream, 0) as file:
            yield cast(BinaryIO, file)
    else:
        yield stream
