"""A finished trace that nobody has asked for yet: as its compressed document, which takes little memory.

The trace of 500 small loads takes 28 MB as tables, and stays for as long as the
program keeps the recording. The file may be gone when somebody asks for it.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from hftrace.schema.checks import TABLES
from hftrace.schema.document import from_bytes
from hftrace.schema.trace import Trace

MIN_CELLS = 500_000
"""Rows times columns of all tables, from which on one is packed; a load of 10,000 tensors has 400,000."""
_GZIP = b"\x1f\x8b"


class Packed:
    """A trace as it was written.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self._name = str(path)
        self._data = data if data.startswith(_GZIP) else zlib.compress(data, 1)

    def trace(self) -> Trace:
        """Returns the trace."""
        # 32: of gzip or of zlib, whichever it is.
        return Trace.of_content(from_bytes(zlib.decompress(self._data, zlib.MAX_WBITS | 32), self._name))


def packed(trace: Trace, path: Path | None) -> Trace | Packed:
    """Returns a trace packed, where that is worth it; itself where it is small, or was not written.

    Args:
        trace: The trace.
        path: Where it was written.
    """
    tables = [getattr(trace, name) for name in TABLES]
    cells = sum(len(table) * len(table.columns) for table in tables)
    if path is None or cells < MIN_CELLS:
        return trace
    try:
        return Packed(path)
    except OSError:
        return trace
