"""Looks at the files that a failed load asked for: which of them are not whole, and what should be there.

A load says little of why it failed: "header too large", and no name. What is said here is read from the files
themselves, after the load; one that somebody has written to since is left alone.
"""

from __future__ import annotations

import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from hftrace.errors import HftraceError
from hftrace.replay.contents import Content
from hftrace.replay.damaged import DamagedError
from hftrace.replay.gguf import read_gguf_header
from hftrace.replay.headers import MAX_NUMBER, StoredTensor, read_safetensors_header
from hftrace.replay.pickles import stored_bytes
from hftrace.schema.vocabulary import OTHER_FORMATS

HEAD_BYTES = 1024
LFS_POINTER = b"version https://git-lfs"
MAX_POINTER_BYTES = 1024
"""Git LFS itself reads no more of a pointer."""
_LFS_SIZE = re.compile(rb"^size (\d{1,18})$", re.MULTILINE)
WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<error")
MAX_JSON_BYTES = 1 << 20
"""A longer one is a vocabulary, and takes long to read."""
MAX_INDEX_BYTES = 100_000_000
PICKLES = (".bin", ".pt", ".pth")
MAX_HEADER_BYTES = 100_000_000
"""safetensors itself reads no longer header."""
_GGUF = b"GGUF"
_ZIP, _PICKLE, _TAR = b"PK\x03\x04", b"\x80", b"ustar"
SETTLED_NS = 50_000_000
"""The clock that a file system writes down is no finer."""


class Damage(NamedTuple):
    """What is wrong with a file."""

    problem: str
    """One of :data:`~hftrace.schema.vocabulary.DAMAGES`."""
    size_bytes: int | None = None
    expected_bytes: int | None = None
    """What should be there; None if unknown."""
    exact: bool | None = None
    """False where it is at least so many."""
    detail: str | None = None


def examine(
    path: str, *, weights: bool, until_ns: int | None = None, content: Content | None = None
) -> Damage | None:
    """Returns what is wrong with a file; None where nothing is, or nobody can tell.

    Args:
        path: The file.
        weights: Whether it holds weights: of a pickle by another name nothing is known.
        until_ns: Wall clock. What was written later says nothing of what the load found.
        content: Where it can be read as the load found it; by its path without that.
    """
    content = content or Content(path, None)
    try:
        if stat.S_ISFIFO(os.stat(content.place).st_mode):
            return None  # whoever opens a pipe waits for its other end
        with open(content.place, "rb") as handle:
            status = os.fstat(handle.fileno())
            if until_ns is not None and status.st_mtime_ns > until_ns + SETTLED_NS:
                return None
            head = handle.read(HEAD_BYTES)
    except IsADirectoryError:
        file = os.path.splitext(path)[1].lower() in (".safetensors", ".gguf", *PICKLES)
        settled = until_ns is None or os.stat(path).st_mtime_ns <= until_ns + SETTLED_NS
        return Damage("format", detail="it is a folder and not a file") if file and settled else None
    except OSError:
        return None
    return _look(path, content, content.size or status.st_size, head, weights)


def _look(path: str, content: Content, size: int, head: bytes, weights: bool) -> Damage | None:
    if not size:
        return Damage("empty", 0)
    if head.startswith(LFS_POINTER) and size <= MAX_POINTER_BYTES:
        found = _LFS_SIZE.search(head)
        return Damage("lfs-pointer", size, int(found[1]), True) if found else Damage("lfs-pointer", size)
    if head.lstrip()[:16].lower().startswith(WEB_PAGES):
        return Damage("web-page", size)
    suffix = os.path.splitext(path)[1].lower()
    if weights and (other := _other_format(suffix, head)) is not None:
        return Damage("format", size, detail=OTHER_FORMATS[other])
    if suffix == ".safetensors":
        return _by_header(content, read_safetensors_header)
    if suffix == ".gguf":
        return _by_header(content, read_gguf_header)
    if suffix == ".json" and size <= MAX_JSON_BYTES:
        return _json(path, content.place, size)
    return _pickle(content.place, size, head) if weights and suffix in PICKLES else None


def _other_format(suffix: str, head: bytes) -> str | None:
    """Returns what a weight file is that has the name of another format; None for all others."""
    if head.startswith(_GGUF):
        return None if suffix == ".gguf" else "gguf"
    if head.startswith(_ZIP):
        return "pickle" if suffix in (".safetensors", ".gguf") else None
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES:
        return None if suffix == ".safetensors" else "safetensors"
    return None


def _by_header(content: Content, read: Callable[..., dict[str, StoredTensor]]) -> Damage | None:
    try:
        read(content.place, size=content.size)
    except DamagedError as error:
        exact = True if error.expected_bytes is not None else None
        return Damage(error.problem, error.size_bytes, error.expected_bytes, exact, error.detail)
    except HftraceError:
        return None
    return None


def _json(path: str, place: str, size: int) -> Damage | None:
    try:
        with open(place, "rb") as handle:
            content = json.loads(handle.read(MAX_JSON_BYTES))
    except OSError:
        return None
    except (ValueError, RecursionError):
        return Damage("format", size, detail="it is not valid JSON")
    if path.endswith(".index.json") and _weight_map(content) is None:
        return Damage("format", size, detail="it is no index of shards: it has no weight_map")
    return None


def _weight_map(content: Any) -> dict[str, Any] | None:
    """Returns which file has which tensor, by an index; None where it is none."""
    names = content.get("weight_map") if isinstance(content, dict) else None
    return names if isinstance(names, dict) else None


def _pickle(path: str, size: int, head: bytes) -> Damage | None:
    """Returns what is wrong with what ``torch.save`` wrote: a zip file, which has its table at its end.

    Up to torch 1.5 it was a row of pickles, of which nobody can tell where it should end.
    """
    if head.startswith(_ZIP):
        try:
            with zipfile.ZipFile(path):
                return None
        except zipfile.BadZipFile:
            least = stored_bytes(path)
            return Damage("cut", size, least, None if least is None else False)
        except Exception:
            return None  # a zip file of a kind that Python does not read
    if head.startswith(_PICKLE) or _TAR in head[:512]:
        return None
    return Damage("format", size, detail="it is nothing that torch.save writes")


class Index(NamedTuple):
    """What an index of shards says."""

    files: list[str]
    """Their names, each once."""
    total_bytes: int | None
    """Of all tensors."""


def read_index(path: str) -> Index | None:
    """Returns what an index says; None where it cannot be read, or is none."""
    try:
        if os.path.getsize(path) > MAX_INDEX_BYTES:
            return None
        with open(path, "rb") as handle:
            content = json.load(handle)
    except (OSError, ValueError, RecursionError):
        return None
    names = _weight_map(content)
    if names is None:
        return None
    files = sorted({name for name in names.values() if isinstance(name, str) and _is_plain(name)})
    metadata = content.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return Index(files, total if type(total) is int and 0 < total <= MAX_NUMBER else None)


def _is_plain(name: str) -> bool:
    """Returns whether this can be the name of a file, below the index."""
    return bool(name) and "\0" not in name and not os.path.isabs(name) and ".." not in name.split("/")


def least_bytes(index: Index, name: str, read: Callable[[str], Content | None]) -> int | None:
    """Returns how much the tensors of a shard take, by the index and the other shards; None if unknown.

    Args:
        index: What the index says.
        name: Of the shard.
        read: Says where another shard can be read as the load found it.
    """
    if index.total_bytes is None:
        return None
    sizes = [_tensor_bytes(other, read(other)) for other in index.files if other != name]
    if None in sizes:
        return None
    least = index.total_bytes - sum(size for size in sizes if size is not None)
    return least if least > 0 else None


def _tensor_bytes(name: str, content: Content | None) -> int | None:
    if content is None:
        return None
    if name.endswith(".safetensors"):
        try:
            return _sum(read_safetensors_header(content.place, size=content.size).values())
        except HftraceError:
            return None
    return stored_bytes(content.place)


def _sum(tensors: Iterable[Any]) -> int:
    return sum(tensor.bytes for tensor in tensors)
