"""Reads what a checkpoint's files say about themselves, with the standard library alone.

A safetensors file begins with the length of its header (8 bytes, little
endian) and the header, JSON: ``{key: {dtype, shape, data_offsets}}``. That is
where stored dtypes, shapes and offsets come from, after the load and outside of
the loading process. Nothing in a header is trusted: what is read of it fits a
trace, or the file is called damaged.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from hftrace.errors import HftraceError
from hftrace.replay.damaged import DamagedError
from hftrace.schema.vocabulary import SAFETENSORS_DTYPES

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
MAX_DIMENSIONS = 64
"""torch's own limit."""
MAX_NUMBER = 1 << 62
"""No file and no tensor has so many bytes or elements; a trace holds 64 bits."""
MAX_DETAIL = 160


class StoredTensor(NamedTuple):
    """One tensor as its file stores it."""

    dtype: str
    """By torch's name; by safetensors' own where torch has none."""
    shape: list[int]
    offset: int | None
    """Absolute position of the data in the file; None if unknown."""
    bytes: int


def read_safetensors_header(
    path: str | os.PathLike[str], *, whole: bool = True, size: int | None = None
) -> dict[str, StoredTensor]:
    """Returns the tensors of a safetensors file, by key, in the order of their data.

    Args:
        path: The file.
        whole: Whether the data must be there too, and lie as the format asks. A file that was cut off while
            a load read it still says what was in it.
        size: Of the file, where ``path`` is a copy of its beginning.

    Raises:
        HftraceError: The file cannot be read.
        DamagedError: It is cut off, or no safetensors file.
    """
    name = os.fspath(path)
    foreign = f"{name} is not a safetensors file"
    try:
        with open(name, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size if size is None else size
            prefix = handle.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or not 2 <= length <= MAX_HEADER_BYTES:
                said = f"its header would take {length} bytes" if len(prefix) == 8 else None
                raise DamagedError(f"{foreign}: it does not begin with a header", "header", size, None, said)
            if 8 + length > size:
                raise DamagedError(
                    f"{name} is cut off: its header alone needs {8 + length} bytes, it has {size}",
                    "cut",
                    size,
                    detail="it ends in the middle of its header",
                )
            header = json.loads(handle.read(length))
    except OSError as error:
        raise HftraceError(f"cannot read {name}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        why = "its header is not JSON"
        raise DamagedError(f"{foreign}: {why}", "header", size, detail=why) from None
    if not isinstance(header, dict):
        why = "its header is not an object"
        raise DamagedError(f"{foreign}: {why}", "header", size, detail=why)
    try:
        "".join(header).encode()
    except UnicodeError:
        why = "a name in its header is no text"
        raise DamagedError(f"{foreign}: {why}", "header", size, detail=why) from None
    tensors: list[tuple[int, str, StoredTensor]] = []
    data = 8 + length
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        begin, stored = _entry(entry, data)
        if stored is None:
            why = f"its header has no place for {_shown(key)}"
            raise DamagedError(f"{name} is damaged: {why}", "header", size, detail=why)
        tensors.append((begin, key, stored))
    tensors.sort(key=lambda item: item[0])
    if whole:
        _check(name, size, data, tensors)
    return {key: stored for _, key, stored in tensors}


def _entry(entry: Any, data: int) -> tuple[int, StoredTensor | None]:
    """Returns where in the data a tensor begins, and what the header says of it; None for what cannot be."""
    try:
        begin, end = entry["data_offsets"]
        dtype, shape = entry["dtype"], entry["shape"]
    except (KeyError, TypeError, ValueError):
        return 0, None
    if not (_are_numbers([begin, end]) and begin <= end and isinstance(dtype, str)):
        return 0, None
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not _are_numbers(shape):
        return 0, None
    if math.prod(shape) > MAX_NUMBER:
        return 0, None
    return begin, StoredTensor(SAFETENSORS_DTYPES.get(dtype) or dtype, shape, data + begin, end - begin)


def _are_numbers(values: Iterable[Any]) -> bool:
    """Returns whether these are counts: JSON also has 1e400, true and -1."""
    return all(type(value) is int and 0 <= value <= MAX_NUMBER for value in values)


def _check(name: str, size: int, data: int, tensors: list[tuple[int, str, StoredTensor]]) -> None:
    """Checks that the data is there, without a gap, as the safetensors library does.

    Raises:
        DamagedError: It is not.
    """
    expected = max((begin + stored.bytes for begin, _, stored in tensors), default=0) + data
    if expected > size:
        raise DamagedError(
            f"{name} is cut off: its tensors need {expected} bytes, it has {size}; fetch it again",
            "cut",
            size,
            expected,
        )
    at = 0
    for begin, key, stored in sorted(tensors, key=lambda item: (item[0], item[2].bytes)):
        if begin != at:
            how = "overlaps what is before it" if begin < at else "leaves a gap before it"
            why = f"{_shown(key)} {how}"
            raise DamagedError(f"{name} is damaged: {why}", "header", size, detail=why)
        at += stored.bytes
    if expected < size:
        raise DamagedError(
            f"{name} is damaged: its tensors end at {expected} bytes, it has {size}", "longer", size, expected
        )


def _shown(key: str) -> str:
    return repr(key if len(key) <= MAX_DETAIL else f"{key[:MAX_DETAIL]}…")
