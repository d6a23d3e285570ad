"""Reads what a checkpoint's files say about themselves, with the standard library alone.

A safetensors file begins with the length of its header (8 bytes, little
endian) and the header, JSON: ``{key: {dtype, shape, data_offsets}}``. That is
where stored dtypes, shapes and offsets come from, after the load and outside of
the loading process.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from hftrace.errors import HftraceError
from hftrace.schema.vocabulary import SAFETENSORS_DTYPES

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""


class StoredTensor(NamedTuple):
    """One tensor as its file stores it."""

    dtype: str
    """By torch's name; by safetensors' own where torch has none."""
    shape: list[int]
    offset: int | None
    """Absolute position of the data in the file; None where the format does not say."""
    bytes: int


def read_safetensors_header(path: str | os.PathLike[str], *, whole: bool = True) -> dict[str, StoredTensor]:
    """Returns the tensors of a safetensors file, by key, in the order of their data.

    Args:
        path: The file.
        whole: Whether the data must be there too. A file that was cut off while
            a load read it still says what was in it.

    Raises:
        HftraceError: The file cannot be read, is cut off, or is no safetensors file.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            prefix = handle.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or not 2 <= length <= MAX_HEADER_BYTES:
                raise HftraceError(f"{name} is not a safetensors file: it does not begin with a header")
            if 8 + length > size:
                raise HftraceError(
                    f"{name} is cut off: its header alone needs {8 + length} bytes, it has {size}"
                )
            header = json.loads(handle.read(length))
    except OSError as error:
        raise HftraceError(f"cannot read {name}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise HftraceError(f"{name} is not a safetensors file: its header is not JSON") from None
    if not isinstance(header, dict):
        raise HftraceError(f"{name} is not a safetensors file: its header is not an object")
    tensors: list[tuple[int, str, StoredTensor]] = []
    end_of_data = 8 + length
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        try:
            begin, end = entry["data_offsets"]
            shape = [int(dimension) for dimension in entry["shape"]]
            stored = StoredTensor(
                SAFETENSORS_DTYPES.get(entry["dtype"], str(entry["dtype"])),
                shape,
                8 + length + int(begin),
                int(end) - int(begin),
            )
        except (KeyError, TypeError, ValueError):
            raise HftraceError(f"{name} is damaged: its header has no place for {key!r}") from None
        end_of_data = max(end_of_data, 8 + length + int(end))
        tensors.append((int(begin), key, stored))
    if whole and end_of_data > size:
        raise HftraceError(
            f"{name} is cut off: its tensors need {end_of_data} bytes, it has {size}; fetch it again"
        )
    tensors.sort(key=lambda item: item[0])
    return {key: stored for _, key, stored in tensors}
