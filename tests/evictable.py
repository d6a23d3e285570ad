"""A file that this machine can drop from its page cache, and what each way of asking says of it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from hftrace.system import page_cache

PAGE = mmap.PAGESIZE


def pages(path: Path) -> list[int | None]:
    """What each method says, None where this kernel does not have it."""
    answers: list[int | None] = []
    with open(path, "rb") as file:
        for method in page_cache.METHODS:
            try:
                answers.append(method(file.fileno(), path.stat().st_size))
            except OSError:
                answers.append(None)
    return answers


def resident_anywhere(path: Path) -> int | None:
    return next((answer for answer in pages(path) if answer is not None), None)


def evictable_file(folder: Path) -> Path:
    """Writes a file of 200 pages and a bit, which is on storage and not in the page cache; skips without."""
    path = folder / "weights.safetensors"
    path.write_bytes(os.urandom(200 * PAGE + 7))
    if resident_anywhere(path) is None:
        pytest.skip("this system does not say what is in the page cache")
    page_cache.evict([path])
    if resident_anywhere(path):
        pytest.skip("this file system keeps its files in memory (tmpfs), or counts the pages of another one")
    return path
