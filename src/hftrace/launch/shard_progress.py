"""How many bytes of each weight file have been read, from the journal of a load that still runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

from hftrace.analysis.live import LiveShard
from hftrace.replay.headers import MAX_HEADER_BYTES
from hftrace.schema import lines


class ShardProgress:
    """The weight files of one load, as the line says that names them.

    What is in a safetensors file is read from its header, once, when the weights begin: a tensor's bytes are
    not in the journal. A pickle says what is in it when its turn comes.
    """

    def __init__(self, line: lines.Checkpoint | None = None) -> None:
        self.paths = [] if line is None else list(line.paths)
        identities = (line.identities if line is not None else None) or [None] * len(self.paths)
        self.shards = [
            LiveShard(os.path.basename(path), identity.size if identity is not None else None)
            for path, identity in zip(self.paths, identities, strict=False)
        ]
        self.placed: set[str] = set()
        """Tensors that are in the model."""
        self._by_name = {shard.name: shard for shard in self.shards}
        self._bytes: dict[str, tuple[LiveShard, int]] = {}
        self._by_module: dict[str, list[str]] | None = None
        self._read: set[str] = set()
        self._slices: dict[int, str] = {}
        self._known: set[int] = set()
        """Files of which it is known what is in them."""
        self._open: LiveShard | None = None

    @property
    def keys(self) -> int | None:
        """How many tensors all files hold; None while one is not known."""
        return len(self._bytes) if self.shards and len(self._known) == len(self.shards) else None

    def begin(self) -> None:
        """Reads the headers: the weights begin."""
        for number, path in enumerate(self.paths):
            if number in self._known or not path.endswith(".safetensors"):
                continue
            sizes = _tensor_sizes(path)
            if sizes is not None:
                self._add(number, sizes)

    def add_keys(self, line: lines.Keys) -> None:
        """Takes in what a pickle says of itself."""
        if line.source in self.paths:
            sizes = {entry.key: entry.bytes for entry in line.entries() if type(entry.bytes) is int}
            self._add(self.paths.index(line.source), sizes)

    def add_slices(self, line: lines.Slices) -> None:
        """Takes in which lazy tensor is which."""
        self._slices.update(line.keys())

    def add_reads(self, reads: Iterable[tuple[int, int, int]]) -> None:
        """Counts lazy tensors that were read: slice, start, end."""
        for slice_id, start, end in reads:
            key = self._slices.get(slice_id)
            if key is not None:
                self._count(key, start, end)

    def add_placed(self, names: Iterable[tuple[str, int, int]]) -> None:
        """Counts tensors that were put into the model: name, start, end."""
        for name, start, end in names:
            self.placed.add(name)
            if not self._slices:
                self._count(name, start, end)

    def add_modules(self, copies: Iterable[tuple[str, int, int]]) -> None:
        """Counts modules that copied their tensors from the file that is open: prefix, start, end."""
        if self._by_module is None:
            self._by_module = {}
            for key in self._bytes:
                self._by_module.setdefault(key[: key.rfind(".") + 1], []).append(key)
        for prefix, start, end in copies:
            for key in self._by_module.get(prefix, ()):
                if self._open is None or self._bytes[key][0] is self._open:
                    self.placed.add(key)
                    self._count(key, start, end)

    def begin_shard(self, name: str, time_ns: int) -> None:
        """Notes that the loader goes to a file."""
        shard = self._by_name.get(os.path.basename(name))
        if shard is not None and shard is not self._open:
            self._open = shard
            if shard.start_ns is None:
                shard.start_ns = time_ns

    def end_shard(self, name: str, time_ns: int) -> None:
        """Notes that the loader is done with a file: by names alone that is not always seen."""
        shard = self._by_name.get(os.path.basename(name))
        if shard is None or self._slices:
            return
        shard.finished = True
        shard.done = max(shard.done, shard.size or 0)
        shard.end_ns = max(shard.end_ns or 0, time_ns)
        if shard is self._open:
            self._open = None

    def _add(self, number: int, sizes: Mapping[str, int]) -> None:
        shard = self.shards[number]
        shard.size = sum(sizes.values())
        self._known.add(number)
        self._by_module = None
        for key, size in sizes.items():
            self._bytes[key] = (shard, size)

    def _count(self, key: str, start: int, end: int) -> None:
        found = self._bytes.get(key)
        if found is None or key in self._read:
            return
        self._read.add(key)
        shard, size = found
        shard.done += size
        shard.start_ns = start if shard.start_ns is None else min(start, shard.start_ns)
        shard.end_ns = end if shard.end_ns is None else max(end, shard.end_ns)
        shard.finished = shard.size is not None and shard.done >= shard.size


def _tensor_sizes(path: str) -> dict[str, int] | None:
    """Returns the bytes of each tensor of a safetensors file; None where its header cannot be read.

    :func:`hftrace.replay.headers.read_safetensors_header` judges the file after the load, and takes three
    times as long: nothing is to wait for that while the load runs.
    """
    sizes = {}
    if not os.path.isfile(path):
        return None  # to open a pipe may take for ever
    try:
        with open(path, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(min(length, MAX_HEADER_BYTES)))
        for key, entry in header.items():
            if key != "__metadata__":
                start, end = entry["data_offsets"]
                sizes[key] = max(0, int(end) - int(start))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None  # the load will say so
    return sizes
