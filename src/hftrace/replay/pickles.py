"""Where the tensors of a pickled checkpoint lie in their file, without running what the pickle asks for.

``torch.save`` writes a zip file: ``data.pkl`` describes the tensors, and each
storage is an entry of its own, not compressed. Here the description is read
with stand-ins for the few names of torch that tensors need; a pickle with any
other name is not read.
"""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

ITEM_BYTES = {
    "BoolStorage": 1,
    "ByteStorage": 1,
    "CharStorage": 1,
    "ShortStorage": 2,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "IntStorage": 4,
    "FloatStorage": 4,
    "LongStorage": 8,
    "DoubleStorage": 8,
}
MAX_PICKLE_BYTES = 100_000_000
MAX_ITEMS = 1 << 58
_LOCAL_HEADER = 30
"""Bytes before the name of an entry of a zip file."""


class Extent(NamedTuple):
    """A stretch of a file."""

    start: int
    bytes: int


class _StorageType(NamedTuple):
    item_bytes: int


class _Storage(NamedTuple):
    name: str
    item_bytes: int


class _Tensor(NamedTuple):
    storage: str
    start: int
    bytes: int


def _tensor(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _Tensor | None:
    """Stands in for ``torch._utils._rebuild_tensor_v2``; None for data that does not lie in one piece."""
    expected = 1
    for count, step in zip(reversed(shape), reversed(stride), strict=True):
        if count > 1 and step != expected:
            return None
        expected *= count
    return _Tensor(storage.name, offset * storage.item_bytes, math.prod(shape) * storage.item_bytes)


def _parameter(data: _Tensor | None, *_: Any) -> _Tensor | None:
    """Stands in for ``torch._utils._rebuild_parameter``."""
    return data


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in ITEM_BYTES:
            return _StorageType(ITEM_BYTES[name])
        if module == "torch._utils":
            if name == "_rebuild_tensor_v2":
                return _tensor
            if name == "_rebuild_parameter":
                return _parameter
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, name, _, _ = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError("no storage")
        return _Storage(str(name), storage_type.item_bytes)


class _Summing(_Reader):
    """Adds up what the storages take: of each one alone, however many tensors lie in it."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.sizes: dict[str, int] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        storage = super().persistent_load(pid)
        count = pid[4]
        if type(count) is not int or not 0 <= count <= MAX_ITEMS:
            raise pickle.UnpicklingError("no storage")
        self.sizes[storage.name] = count * storage.item_bytes
        return storage


def stored_bytes(path: str | os.PathLike[str]) -> int | None:
    """Returns how much the tensors of a pickled checkpoint take in it; None where nobody can tell.

    The description comes first, so a file that was cut off still has it.
    """
    try:
        with open(path, "rb") as raw:
            header = raw.read(_LOCAL_HEADER)
            magic, method = header[:4], int.from_bytes(header[8:10], "little")
            lengths = [int.from_bytes(header[at : at + 2], "little") for at in (26, 28)]
            name = raw.read(lengths[0])
            if magic != b"PK\x03\x04" or method or not name.endswith(b"/data.pkl"):
                return None
            raw.seek(lengths[1], os.SEEK_CUR)
            reader = _Summing(raw)  # it knows its own end
            reader.load()
            return sum(reader.sizes.values())
    except Exception:
        return None  # whatever the file holds: see below


def pickled_extents(path: str | os.PathLike[str]) -> dict[str, Extent]:
    """Returns where the data of each tensor of a pickled checkpoint lies; nothing where nobody can tell."""
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
            (entry,) = (info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
            if entry.file_size > MAX_PICKLE_BYTES:
                return {}
            with archive.open(entry) as handle:
                content = _Reader(handle).load()
            folder = entry.filename[: -len("data.pkl")]
            found = {}
            for key, tensor in content.items():
                if isinstance(key, str) and isinstance(tensor, _Tensor):
                    info = archive.getinfo(f"{folder}data/{tensor.storage}")
                    if info.compress_type == zipfile.ZIP_STORED:
                        found[key] = Extent(_data_offset(raw, info) + tensor.start, tensor.bytes)
            return found
    except Exception:
        return {}  # whatever the file holds: another format, another pickle, a damaged one


def _data_offset(raw: Any, info: zipfile.ZipInfo) -> int:
    """Returns where the data of an entry begins: behind a header whose length only the header itself says."""
    raw.seek(info.header_offset + 26)
    lengths = raw.read(4)
    return (
        info.header_offset
        + 30
        + int.from_bytes(lengths[:2], "little")
        + int.from_bytes(lengths[2:], "little")
    )
