"""The architecture of a GGUF file, by the first lines of its header.

transformers reads such a file whole before it knows what model it is of, which
may take longer than the load. A program names a class, and never waits for that.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

MAGIC = b"GGUF"
KEY = "general.architecture"
STRING = 8
"""The type of a value that is a string."""
MAX_LENGTH = 256
"""No name of an architecture, and not the key, is longer: what says so is something else."""


def architecture_of(path: str) -> str | None:
    """Returns what a file says of its architecture; None where it does not begin with that, as files do."""
    try:
        with open(path, "rb") as file:
            magic, version, _, entries = struct.unpack("<4sIQQ", file.read(24))
            # Version 1 has other lengths, and what is big-endian has a version of millions.
            if magic != MAGIC or not 2 <= version < 1 << 16 or not entries or _text(file) != KEY:
                return None
            (kind,) = struct.unpack("<I", file.read(4))
            return _text(file) if kind == STRING else None
    except (OSError, ValueError, struct.error):
        return None


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_LENGTH:
        raise ValueError(length)
    return file.read(length).decode("utf-8")
