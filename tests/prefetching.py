"""A stand-in for a loader that reads ahead: bytes arrive in threads of its own, before Python asks.

A shard is opened, its bytes are read by threads (``pread``) into a few large allocations, and each tensor is
a view of one of them. Whoever asks for a tensor waits until its bytes are there. transformers' loader takes
what is handed out here for slices of ``safe_open``, of which it knows ``get_dtype``, ``get_shape`` and
``[...]``.

``install()`` puts it where transformers 5.x opens shards; as a script, this loads a checkpoint so:
``python prefetching.py MODEL [KEY=JSON ...]``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors
import torch

RANGE_BYTES = 64 << 20
"""What one allocation holds, at least: a tensor that is larger has one to itself."""
CHUNK_BYTES = 4 << 20
"""What is read in one call."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Settings:
    """What the tests set."""

    threads = 4
    pause = 0.0
    """Seconds that a thread sleeps before each read: a storage that is slow, however warm the cache is."""
    copy_full = False
    """Whether a whole tensor is handed out as a copy of its own."""


class Range:
    """One allocation, with the bytes of neighbouring tensors of a file.

    Args:
        start: Where it begins in the file.
        end: Where it ends.
    """

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.memory = torch.empty(0, dtype=torch.uint8)
        self.chunks: list[Any] = []

    def begin(self, descriptor: int, pool: ThreadPoolExecutor) -> None:
        """Lets the threads read it."""
        self.memory = torch.empty(self.end - self.start, dtype=torch.uint8)
        into = memoryview(self.memory.numpy())
        for at in range(0, len(into), CHUNK_BYTES):
            self.chunks.append(pool.submit(_read, descriptor, into[at : at + CHUNK_BYTES], self.start + at))

    def view(self, start: int, end: int, dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
        """Returns the tensor at a place of the file, once its bytes are there."""
        first, last = start - self.start, end - self.start
        for chunk in self.chunks[first // CHUNK_BYTES : -(-last // CHUNK_BYTES)]:
            chunk.result()
        memory = self.memory[first:last]
        if first % dtype.itemsize:
            memory = memory.clone()
        return memory.view(dtype).view(shape)


def _read(descriptor: int, into: memoryview, offset: int) -> None:
    time.sleep(Settings.pause)
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], offset + done)
        if not count:
            raise OSError("the file is cut off")
        done += count


class PrefetchedShard:
    """A file of which all tensors are read as soon as one of them is asked for.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        length = int.from_bytes(os.pread(self._descriptor, 8, 0), "little")
        header = json.loads(os.pread(self._descriptor, length, 8))
        header.pop("__metadata__", None)
        self.header: dict[str, dict[str, Any]] = header
        self._base = 8 + length
        self._lock = threading.Lock()
        self._range_of: dict[str, Range] = {}
        self._ranges: list[Range] = []
        for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
            start, end = (self._base + offset for offset in header[name]["data_offsets"])
            if not self._ranges or end - self._ranges[-1].start > RANGE_BYTES:
                self._ranges.append(Range(start, end))
            self._ranges[-1].end = end
            self._range_of[name] = self._ranges[-1]
        self._pool: ThreadPoolExecutor | None = None

    def tensor(self, name: str) -> torch.Tensor:
        """Returns a tensor, once its bytes are there."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(Settings.threads, thread_name_prefix="read-ahead")
                for each in self._ranges:
                    each.begin(self._descriptor, self._pool)
        entry = self.header[name]
        start, end = (self._base + offset for offset in entry["data_offsets"])
        return self._range_of[name].view(start, end, DTYPES[entry["dtype"]], entry["shape"])

    def close(self) -> None:
        """Ends the threads; tensors that were handed out keep their memory."""
        if self._pool is not None:
            self._pool.shutdown()
        os.close(self._descriptor)
        self._ranges.clear()
        self._range_of.clear()


class PrefetchedTensor:
    """What stands in for a slice of ``safe_open``.

    Args:
        shard: Its file.
        name: Its key.
    """

    def __init__(self, shard: PrefetchedShard, name: str) -> None:
        self._shard = shard
        self._name = name

    def get_dtype(self) -> str:
        """Returns the dtype, by the name of the file format."""
        return str(self._shard.header[self._name]["dtype"])

    def get_shape(self) -> list[int]:
        """Returns the shape."""
        return list(self._shard.header[self._name]["shape"])

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Returns the tensor, or a copy of a part of it."""
        whole = self._shard.tensor(self._name)
        part = whole[index]
        return part.clone() if Settings.copy_full or part.numel() < whole.numel() else part


class SafeOpen:
    """What stands in for ``safe_open``, as far as transformers' loader uses it."""

    def __init__(self, filename: Any, framework: str, device: str = "cpu", *, backend: str = "mmap") -> None:
        del framework, device, backend
        self._shard = PrefetchedShard(os.fspath(filename))

    def keys(self) -> list[str]:
        """Returns the names of the file's tensors."""
        return list(self._shard.header)

    def get_slice(self, name: str) -> PrefetchedTensor:
        """Returns what stands for a tensor until somebody asks for it."""
        return PrefetchedTensor(self._shard, name)

    def __enter__(self) -> SafeOpen:
        return self

    def __exit__(self, *error: object) -> None:
        self._shard.close()

    def metadata(self) -> dict[str, str]:
        """Returns what the header says besides."""
        return {"format": "pt"}


class PlainSlice:
    """A slice written in Python that reads nothing ahead: the thread that asks reads the map."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def get_dtype(self) -> str:
        """Returns the dtype, by the name of the file format."""
        return str(self._inner.get_dtype())

    def get_shape(self) -> list[int]:
        """Returns the shape."""
        return list(self._inner.get_shape())

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Returns the tensor."""
        tensor: torch.Tensor = self._inner[index]
        return tensor


class PlainOpen:
    """Hands such slices out."""

    def __init__(self, filename: Any, framework: str, device: str = "cpu", *, backend: str = "mmap") -> None:
        self._inner = safetensors.safe_open(filename, framework, device)

    def keys(self) -> list[str]:
        """Returns the names of the file's tensors."""
        return list(self._inner.keys())

    def get_slice(self, name: str) -> PlainSlice:
        """Returns what stands for a tensor."""
        return PlainSlice(self._inner.get_slice(name))

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(None, None, None)


def warming_open(files: list[str], threads: int = 2) -> Any:
    """Returns what opens a file, and has threads read all files into the page cache when it opens the first.

    Args:
        files: Of the checkpoint.
        threads: That read.
    """
    from transformers.distributed import utils

    left = list(files)

    def prefetch_checkpoint_shards(checkpoint_files: list[str]) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_read_whole, checkpoint_files))

    prefetch_checkpoint_shards.__module__ = utils.__name__
    utils.prefetch_checkpoint_shards = prefetch_checkpoint_shards

    def opened(*arguments: Any, **keywords: Any) -> Any:
        if left:
            now, left[:] = list(left), []
            utils.prefetch_checkpoint_shards(now)
        return safetensors.safe_open(*arguments, **keywords)

    return opened


def _read_whole(path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.read(CHUNK_BYTES):
            time.sleep(Settings.pause)


def install(opened: Any = SafeOpen) -> None:
    """Puts it where transformers opens the shards of a checkpoint."""
    from transformers import modeling_utils

    modeling_utils.safe_open = opened


def main() -> None:
    """Loads a checkpoint; settings begin with ``ahead.``; ``how`` is ``ahead``, ``plain`` or ``warming``."""
    from transformers import AutoModelForCausalLM

    keywords: dict[str, Any] = {}
    how = "ahead"
    for word in sys.argv[2:]:
        name, _, value = word.partition("=")
        if name == "how":
            how = value
        elif name.startswith("ahead."):
            setattr(Settings, name.removeprefix("ahead."), json.loads(value))
        else:
            keywords[name] = json.loads(value)
    if how == "warming":
        install(warming_open(sorted(map(str, Path(sys.argv[1]).glob("*.safetensors")))))
    else:
        install(PlainOpen if how == "plain" else SafeOpen)
    model = AutoModelForCausalLM.from_pretrained(Path(sys.argv[1]), **keywords)
    print(sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    main()
