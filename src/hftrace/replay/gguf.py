"""Reads the header of a GGUF file: which tensors it holds, in which type, and where.

A GGUF file begins with its magic number, its version, how many tensors and how
many facts it has; then the facts (configuration and the whole vocabulary), then a
line for each tensor (name, dimensions, type, offset), then, aligned, the data.
Only what the ledger needs is kept of it: the facts are stepped over.

Every length in a header comes from the file. None of them is trusted: nothing is
allocated for a count before the file has been seen to be that long, and a header
of more than :data:`MAX_HEADER_BYTES` or :data:`MAX_ENTRIES` is given up.
"""

from __future__ import annotations

import math
import os
import struct
from typing import BinaryIO

from hftrace.errors import HftraceError
from hftrace.replay.damaged import DamagedError
from hftrace.replay.headers import StoredTensor
from hftrace.schema.vocabulary import GGUF_TYPES

MAGIC = b"GGUF"
VERSIONS = (2, 3)
"""Version 1 counted in 32 bits; no library reads it any more."""
MAX_HEADER_BYTES = 1 << 27
"""A vocabulary of a million words and as many merges takes a quarter of it."""
MAX_ENTRIES = 1 << 20
"""Facts, tensors and nested lists together."""
MAX_NAME_BYTES = 1 << 16
"""The format's own limit for the key of a fact; ggml allows a tensor's name 64."""
MAX_DIMENSIONS = 8
"""ggml itself has four."""
DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
_FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Types of a fact's value that have one size, and their bytes."""
_UINT32 = 4
_MAX_NESTING = 4
_CHUNK = 1 << 20


class _HeaderError(Exception):
    """What a header says cannot be; the text says what."""

    problem = "header"


class _CutError(_HeaderError):
    """The file ends before its header does."""

    problem = "cut"


def read_gguf_header(
    path: str | os.PathLike[str], *, whole: bool = True, size: int | None = None
) -> dict[str, StoredTensor]:
    """Returns the tensors of a GGUF file, by key, in the order of their data.

    Shapes are in torch's order, which is the reverse of the file's; offsets
    are from the start of the file.

    Args:
        path: The file.
        whole: Whether the data must be there too.
        size: Of the file, where ``path`` is a copy of its beginning.

    Raises:
        HftraceError: The file cannot be read.
        DamagedError: It is cut off, or no GGUF file.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size if size is None else size
            tensors = _read(_Reader(handle, size))
    except OSError as error:
        raise HftraceError(f"cannot read {name}: {error.strerror or error}") from None
    except _ShorterError:
        raise HftraceError(f"cannot read {name}: its header is not all there") from None
    except _HeaderError as damage:
        raise DamagedError(
            f"{name} is not a GGUF file that can be read: {damage}",
            damage.problem,
            size,
            detail=str(damage),
        ) from None
    end = max((stored.offset + stored.bytes for _, stored in tensors if stored.offset is not None), default=0)
    if whole and end > size:
        raise DamagedError(
            f"{name} is cut off: its tensors need {end} bytes, it has {size}; fetch it again",
            "cut",
            size,
            end,
        )
    tensors.sort(key=lambda item: item[1].offset or 0)
    return dict(tensors)


class _ShorterError(Exception):
    """The file has become shorter while it was read, or no more than its beginning is there."""


class _Reader:
    """A file that is read from its start, piece by piece, and never further than a header may be.

    Args:
        handle: The file.
        size: Its length.
    """

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle = handle
        self._size = size
        self._buffer = b""
        self._start = 0
        """Where the buffer begins in the file."""
        self._at = 0
        self._entries = 0
        self.order = "<"

    @property
    def position(self) -> int:
        """Where the next byte lies in the file."""
        return self._start + self._at

    def _need(self, count: int) -> None:
        """Sees to it that so many bytes stand in the buffer.

        Raises:
            _HeaderError: The file ends before them, or no header is that long.
        """
        left = len(self._buffer) - self._at
        if left >= count:
            return
        end = self.position + count
        if end > self._size:
            raise _CutError(f"it ends in the middle of its header, at {self._size} bytes")
        if end > MAX_HEADER_BYTES:
            raise _HeaderError(f"its header takes more than {MAX_HEADER_BYTES} bytes")
        more = self._handle.read(max(count - left, _CHUNK))
        self._buffer, self._start, self._at = self._buffer[self._at :] + more, self.position, 0
        if len(self._buffer) < count:
            raise _ShorterError

    def begin_entry(self) -> None:
        """Counts one more of what a header has a number of.

        Raises:
            _HeaderError: These are too many.
        """
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise _HeaderError(f"its header has more than {MAX_ENTRIES} entries")

    def take(self, count: int) -> bytes:
        """Returns the next bytes."""
        self._need(count)
        begin, self._at = self._at, self._at + count
        return self._buffer[begin : self._at]

    def skip(self, count: int) -> None:
        """Steps over bytes, without reading those that lie beyond the buffer."""
        left = len(self._buffer) - self._at
        if count <= left:
            self._at += count
            return
        end = self.position + count
        if end > min(self._size, MAX_HEADER_BYTES):
            self._need(count)  # says what is wrong
        self._handle.seek(end)
        self._buffer, self._start, self._at = b"", end, 0

    def unsigned(self, count: int) -> int:
        """Returns the next integer of so many bytes."""
        return int.from_bytes(self.take(count), "little" if self.order == "<" else "big")

    def unsigneds(self, count: int) -> tuple[int, ...]:
        """Returns the next integers of eight bytes."""
        return struct.unpack(f"{self.order}{count}Q", self.take(8 * count))

    def skip_strings(self, count: int) -> None:
        """Steps over strings: by far the most of a header, in a loop that does nothing else."""
        length_at = struct.Struct(f"{self.order}Q").unpack_from
        for _ in range(count):
            if len(self._buffer) - self._at < 8:
                self._need(8)
            (length,) = length_at(self._buffer, self._at)
            end = self._at + 8 + length
            if end <= len(self._buffer):
                self._at = end
            else:
                self._at += 8
                self.skip(length)

    def text(self) -> str:
        """Returns the next string, which is a name."""
        length = self.unsigned(8)
        if length > MAX_NAME_BYTES:
            raise _HeaderError(f"it has a name of {length} bytes")
        return self.take(length).decode("utf-8", "replace")


def _read(reader: _Reader) -> list[tuple[str, StoredTensor]]:
    """Returns the tensors in the order of the header.

    Raises:
        _HeaderError: It is none.
    """
    if reader.take(4) != MAGIC:
        raise _HeaderError("it does not begin with GGUF")
    version = reader.take(4)
    # Nothing but the version says in which order a file's bytes are.
    reader.order = "<" if int.from_bytes(version, "little") & 0xFFFF else ">"
    number = int.from_bytes(version, "little" if reader.order == "<" else "big")
    if number not in VERSIONS:
        raise _HeaderError(f"it has version {number}; known are {' and '.join(map(str, VERSIONS))}")
    count, facts = reader.unsigneds(2)
    alignment = DEFAULT_ALIGNMENT
    for _ in range(facts):
        reader.begin_entry()
        key = reader.text()
        kind = reader.unsigned(4)
        if key == "general.alignment" and kind == _UINT32:
            alignment = reader.unsigned(4)
        else:
            _skip_value(reader, kind)
    if alignment < 1 or alignment & (alignment - 1):
        raise _HeaderError(f"its alignment is {alignment}, which is no power of two")
    found: dict[str, tuple[int, StoredTensor]] = {}
    for _ in range(count):
        reader.begin_entry()
        key, tensor = _read_tensor(reader)
        if key in found:
            raise _HeaderError(f"it has two tensors {key[:200]!r}")
        found[key] = tensor
    data = -(-reader.position // alignment) * alignment
    return [(key, tensor._replace(offset=data + offset)) for key, (offset, tensor) in found.items()]


def _read_tensor(reader: _Reader) -> tuple[str, tuple[int, StoredTensor]]:
    """Returns a tensor's key, its offset in the data, and what is known of it."""
    key = reader.text()
    count = reader.unsigned(4)
    if count > MAX_DIMENSIONS:
        raise _HeaderError(f"its tensor {key[:200]!r} has {count} dimensions")
    dimensions = reader.unsigneds(count)
    number = reader.unsigned(4)
    offset = reader.unsigned(8)
    if number not in GGUF_TYPES:
        raise _HeaderError(f"its tensor {key[:200]!r} is of type {number}, which is not known")
    dtype, values, size = GGUF_TYPES[number]
    items = math.prod(dimensions)
    if (dimensions[0] if dimensions else 1) % values:
        raise _HeaderError(f"a row of its tensor {key[:200]!r} is no whole number of blocks of {dtype}")
    stored = StoredTensor(dtype, list(reversed(dimensions)), None, items // values * size)
    if offset + stored.bytes >= 1 << 62:
        raise _HeaderError(f"its tensor {key[:200]!r} lies beyond any file")
    return key, (offset, stored)


def _skip_value(reader: _Reader, kind: int, nesting: int = 0) -> None:
    """Steps over a fact's value."""
    if kind in _FIXED:
        reader.skip(_FIXED[kind])
    elif kind == _STRING:
        reader.skip_strings(1)
    elif kind == _ARRAY and nesting < _MAX_NESTING:
        inner = reader.unsigned(4)
        count = reader.unsigned(8)
        if inner in _FIXED:
            reader.skip(count * _FIXED[inner])
        elif inner == _STRING:
            reader.skip_strings(count)
        else:
            for _ in range(count):
                reader.begin_entry()
                _skip_value(reader, inner, nesting + 1)
    else:
        raise _HeaderError(f"it has a value of type {kind}")
