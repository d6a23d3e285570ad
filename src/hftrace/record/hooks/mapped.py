"""Tensors that lie in a file's own memory: which key of which file, told by the address.

``safe_open`` is written in Rust, so nothing that is read by it goes through a
function that can be hooked. But on a CPU it maps the file, and the tensors that
it returns are views of the map: where a tensor begins is where its bytes
stand in the file, and the file's header says which key that is. The map cannot
move while a storage over it lives, and of that a weak reference is kept, which
keeps no memory.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
from typing import Any, NamedTuple

from hftrace.record.hooks.capture import absolute
from hftrace.record.recorder import Recorder, clock
from hftrace.schema import lines

MAX_MAPS = 1000
"""Files that are remembered at a time."""
MAX_HEADER_BYTES = 100_000_000
SUFFIX = ".safetensors"


class Map(NamedTuple):
    """A file in memory."""

    storage: int
    """A weak reference to the storage that is all of it."""
    start: int
    end: int
    path: str
    identity: lines.Identity
    time_ns: int
    """When it was opened."""


class Place(NamedTuple):
    """What stands in a file at the place of a tensor."""

    path: str
    key: str
    identity: lines.Identity
    time_ns: int
    """When the file was opened."""


class _Entry(NamedTuple):
    key: str
    dtype: str
    shape: tuple[int, ...]


class Mapped:
    """The files that were mapped by ``safe_open``, of one recording.

    Args:
        recorder: Whose files they are.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.RLock()
        self._maps: list[Map] = []
        self._headers: dict[tuple[str, lines.Identity], dict[int, _Entry]] = {}
        self.untold = 0
        """Openings that are no loads, because there were too many."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._maps)

    def add(self, storage: Any) -> Map | None:
        """Remembers a storage that is all of a file; returns what it is, None where that cannot be told."""
        start = int(storage.data_ptr())
        path = _path_at(start) if start else None
        identity = self._recorder.files.resolved(path) if path is not None else None
        if path is None or identity is None:
            return None
        with self._lock:
            self._let_go()
            if len(self._maps) >= MAX_MAPS:
                return None
            found = Map(storage._weak_ref(), start, start + int(storage.nbytes()), path, identity, clock())
            self._maps.append(found)
        return found

    def place_of(self, tensor: Any) -> Place | None:
        """Returns what a tensor is in a file; None unless it is that, and all of it."""
        if not self._maps:
            return None
        at = int(tensor.data_ptr())
        found = self._map_at(at)
        entry = self._header(found).get(at - found.start) if found is not None else None
        if (
            found is None
            or entry is None
            or not tensor.is_contiguous()
            or entry.shape != tuple(tensor.shape)
            or entry.dtype != str(tensor.dtype).removeprefix("torch.")
        ):
            return None
        return Place(found.path, entry.key, found.identity, found.time_ns)

    def _map_at(self, address: int) -> Map | None:
        expired = sys.modules["torch"].UntypedStorage._expired
        with self._lock:
            # The latest first: where a map is gone, another one may have its addresses.
            for each in reversed(self._maps):
                if each.start <= address < each.end and not expired(each.storage):
                    return each
        return None

    def close(self) -> None:
        """Forgets everything, and writes down how much was only counted."""
        if self.untold:
            counted = {"shard": {"calls": self.untold, "duration_ns": 0}}
            self._recorder.facts("calls", {"left_out": counted})
        if self._lock.acquire(timeout=1):  # after a fork a thread may hold it that is not there
            try:
                self._let_go(whole=True)
            finally:
                self._lock.release()
        self._headers.clear()

    def _let_go(self, *, whole: bool = False) -> None:
        """Forgets the maps that are gone, or all, once: a reference must not be freed twice."""
        if not self._maps:
            return
        storage = sys.modules["torch"].UntypedStorage
        gone = [each for each in self._maps if whole or storage._expired(each.storage)]
        self._maps = [each for each in self._maps if each not in gone] if gone else self._maps
        for each in gone:
            storage._free_weak_ref(each.storage)

    def _header(self, found: Map) -> dict[int, _Entry]:
        known = self._headers.get((found.path, found.identity))
        if known is None:
            known = {}
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                known = _read_header(found)
            self._headers[found.path, found.identity] = known
        return known


DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""What the format calls a dtype, and what torch calls it."""


def _read_header(found: Map) -> dict[int, _Entry]:
    """Returns what begins at which byte of a file, if it is still the one that was opened."""
    with open(found.path, "rb") as file:
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != found.identity[:2]:
            return {}
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            return {}
        header = json.loads(file.read(length))
    entries = {}
    for key, value in header.items():
        # Empty tensors begin where another one does.
        if key != "__metadata__" and math.prod(value["shape"]):
            begin = 8 + length + int(value["data_offsets"][0])
            entries[begin] = _Entry(key, DTYPES.get(value["dtype"], ""), tuple(value["shape"]))
    return entries


def _path_at(address: int) -> str | None:
    """Returns the file whose beginning is mapped at an address, where the kernel says so."""
    begins = f"{address:x}-"
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            line = next((each for each in maps if each.lstrip("0").startswith(begins)), None)
        if line is not None:
            _, _, offset, _, inode, path = line.rstrip("\n").split(None, 5)
            # Of a path with odd characters the kernel says another one, of a deleted file it says so.
            if not int(offset, 16) and path.endswith(SUFFIX) and os.stat(path).st_ino == int(inode):
                return absolute(path)
    return None
