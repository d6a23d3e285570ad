"""How fast this machine reads given files: from storage and from the page cache, with one reader and several.

Only read calls into one buffer, which is what no loader can beat. Bounded in bytes and in time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hftrace.errors import HftraceError
from hftrace.system.page_cache import resident_share_of

BLOCK_BYTES = 8 << 20
DROPPED = 0.1
"""The share of a file that may still be in the page cache when it counts as dropped from it."""
LEAST_NS = 1_000_000
"""A reading that took less says nothing."""


@dataclass(frozen=True)
class Piece:
    """A part of a file that is read."""

    path: Path
    offset: int
    bytes: int


def pieces_of(files: Sequence[Path], most: int) -> list[Piece]:
    """Returns the parts of files to read: from the beginning on, whole where there is room.

    Raises:
        HftraceError: There is nothing to read.
    """
    found = []
    for path in files:
        size = path.stat().st_size
        for offset in range(0, size, BLOCK_BYTES):
            if most <= 0:
                break
            piece = Piece(path, offset, min(BLOCK_BYTES, size - offset, most))
            most -= piece.bytes
            found.append(piece)
    if not found:
        raise HftraceError("there are no weights to read: the files are empty")
    return found


def drop(pieces: Sequence[Piece]) -> bool | None:
    """Asks the kernel to drop parts of files from the page cache; says whether it did, None if unknown."""
    if not hasattr(os, "posix_fadvise"):
        return None
    unknown = False
    for path in dict.fromkeys(piece.path for piece in pieces):
        mine = [piece for piece in pieces if piece.path == path]
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(file)
            first, last = mine[0].offset, mine[-1].offset + mine[-1].bytes
            before = resident_share_of(file, os.fstat(file).st_size)
            os.posix_fadvise(file, first, last - first, os.POSIX_FADV_DONTNEED)
            size = os.fstat(file).st_size
            after = resident_share_of(file, size)
        finally:
            os.close(file)
        if before is None or after is None:
            unknown = True
        elif after > DROPPED + max(0, size - (last - first)) / size:
            return False
    return None if unknown else True


def read_rate(pieces: Sequence[Piece], readers: int, seconds: float) -> int | None:
    """Returns bytes per second of reading parts of files in turn; None where there were too few to say.

    Args:
        pieces: What to read.
        readers: Threads that share them.
        seconds: When to stop, whatever is left.

    Raises:
        OSError: A file cannot be read.
    """
    left = iter(list(pieces))
    lock = threading.Lock()
    until = time.monotonic() + seconds
    read: list[int] = []
    failed: list[OSError] = []

    def run() -> None:
        buffer = bytearray(BLOCK_BYTES)
        view, files = memoryview(buffer), dict[Path, int]()
        try:
            while time.monotonic() < until:
                with lock:
                    piece = next(left, None)
                if piece is None:
                    return
                if piece.path not in files:
                    files[piece.path] = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
                done = 0
                while done < piece.bytes:
                    count = os.preadv(files[piece.path], [view[: piece.bytes - done]], piece.offset + done)
                    if not count:
                        break
                    done += count
                read.append(done)
        except OSError as error:
            failed.append(error)
        finally:
            for file in files.values():
                os.close(file)

    threads = [threading.Thread(target=run) for _ in range(readers)]
    started = time.monotonic_ns()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.monotonic_ns() - started
    if failed:
        raise failed[0]
    return round(sum(read) * 1e9 / spent) if spent >= LEAST_NS and read else None
