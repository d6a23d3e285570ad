"""Where the files of a load can be read as they were when it found them.

A path is no file: by the time that a trace is made there may be nothing under
it, or another file. What was recorded of each file (its identity, a copy of its
header, a descriptor in the process that loaded it) says where its content is
still to be had, or that it is not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from hftrace.errors import HftraceError
from hftrace.replay.headers import read_safetensors_header
from hftrace.replay.reader import Process
from hftrace.schema import journal, lines
from hftrace.schema.lines import Identity

Opened = Callable[[str, Identity], "str | None"]
"""Returns where the process that loaded a file can read it by a descriptor; None where it cannot."""

GONE, CHANGED = "file_gone", "file_changed"
"""Why a file cannot be read any more as it was: words of :data:`~hftrace.schema.vocabulary.EVIDENCE`."""


class Content(NamedTuple):
    """A place where a file can be read as it was."""

    place: str
    size: int | None
    """Of the file, where this is the beginning of it; None where it is all of it."""


class Contents:
    """Finds the files of loads as they were.

    Args:
        folder: Where the journals are, and copies of headers beside them.
        processes: Whose journals they are.
        opened: Asked for a file that is still open.
    """

    def __init__(
        self, folder: Path | None = None, processes: Iterable[Process] = (), opened: Opened | None = None
    ) -> None:
        self._opened = opened
        self._copies: dict[tuple[str | None, Identity], str] = {}
        for process in processes:
            for kept in process.lines_of(lines.Kept):
                if folder is not None and kept.identity is not None and _is_copy(kept.copy):
                    self._copies[_key(kept.path, kept.identity)] = str(folder / kept.copy)

    def headers_of(self, path: str, identity: Identity | None) -> list[Content]:
        """Returns the places where the beginning of a file can be read, the surest first."""
        if identity is None:
            return [Content(path, None)] if _is_file(path) else []
        copy = self._copies.get(_key(path, identity))
        copies = [Content(copy, identity.size)] if copy is not None and _is_file(copy) else []
        whole = self.whole(path, identity)
        if whole is not None:
            return [*copies, Content(whole, None)]
        return [*copies, Content(path, identity.size)] if _is_cut(path, identity) else copies

    def whole(self, path: str, identity: Identity | None) -> str | None:
        """Returns where all of a file can be read; None where it is gone, or is not what it was.

        Args:
            path: Where it was.
            identity: What it was; None where nobody has written it down: it is taken for what is there now.
        """
        if identity is None:
            return path if _is_file(path) else None
        place = self._opened(path, identity) if self._opened is not None else None
        return place if place is not None else path if lost(path, identity) is None else None


def _key(path: str, identity: Identity) -> tuple[str | None, Identity]:
    """Returns what tells a file from all others: its own number, else where it was."""
    return (None if identity.inode is not None else path), identity


def became(path: str, identity: Identity) -> str | None:
    """Returns what has become of a file: ``gone``, ``changed``, or None; a pipe has become nothing else."""
    try:
        return None if _is_same(os.stat(path), identity) else CHANGED.removeprefix("file_")
    except (OSError, ValueError):
        return GONE.removeprefix("file_")


def lost(path: str, identity: Identity) -> str | None:
    """Returns why there is not any more under a path what was there; None where there is."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return GONE
    return None if _is_same(status, identity) and stat.S_ISREG(status.st_mode) else CHANGED


def _is_same(status: os.stat_result, identity: Identity) -> bool:
    # Devices are numbered anew when the machine starts.
    same = (status.st_size, status.st_mtime_ns) == (identity.size, identity.mtime_ns)
    return same and identity.inode in (None, status.st_ino)


def _is_cut(path: str, identity: Identity) -> bool:
    """Returns whether this is the same file, and shorter: what is mapped when that happens kills its reader.

    Its beginning may still be the old one. A safetensors header proves it, because it says where the file
    ended; no other format does.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    same = status.st_ino == identity.inode  # devices are numbered anew when the machine starts
    cut = stat.S_ISREG(status.st_mode) and status.st_size < identity.size
    if not same or not cut or not path.endswith(".safetensors"):
        return False
    try:
        read_safetensors_header(path, size=identity.size)
    except HftraceError:
        return False
    return True


def _is_file(path: str) -> bool:
    """Returns whether this can be opened without waiting for anybody."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _is_copy(name: object) -> bool:
    """Returns whether this is the name of a copy beside the journal, whoever wrote the journal."""
    return isinstance(name, str) and name.startswith(journal.COPY_PREFIX) and os.path.basename(name) == name
