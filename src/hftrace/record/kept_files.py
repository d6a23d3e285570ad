"""The files of a load as they were when the load found them, for as long as the recording goes on.

What a file's header says is read later: when the block ends, by another process,
or out of a journal. By then the checkpoint may be deleted, moved, replaced by a
newer one, or written over. So each file's identity is written down when it is
resolved, and three things are done that cost a load next to nothing:

- The file is opened, and stays open. A file that is deleted or replaced can
  still be read by its descriptor, until the recording ends.
- When a load has returned, and its clock has stopped, the headers of its weight
  files are copied beside the journal. What is written over a file later changes
  nothing in a copy, and a copy can be read without this process.
- What has neither is read by its path, where it still is what it was.

A descriptor must not be noticed by the host. There are none of files on a
network, where an open file that is deleted leaves another one in its folder; at
most :data:`MAX_DESCRIPTORS` and :data:`SHARE` of what the process may have; and
after a load so many as are of :data:`MAX_HELD_BYTES` together, because a file
that is deleted keeps its disk space while it is open. Each is told from one of
the host's own, which may have closed ours and has its number now, by a position
that nobody else has.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import threading
from pathlib import Path
from typing import NamedTuple

from hftrace.schema import journal, lines
from hftrace.schema.lines import Identity
from hftrace.system.limits import open_files_limit
from hftrace.system.mounts import is_local
from hftrace.system.page_cache import resident_share, resident_share_of

MAX_DESCRIPTORS = 256
SHARE = 4
"""No more descriptors than one in so many of those that the process may have."""
MAX_HELD_BYTES = 1 << 30
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
HEAD_BYTES = 1024
"""Enough to tell what something is that is no weight file."""
GGUF_BYTES = 16 << 20
"""The header of a GGUF file holds its vocabulary, and nothing in it says how long it is: less than this."""
MAX_COPIED_BYTES = 1 << 28
"""Of all copies together."""
MAX_ASKED = 1000
_PIECE = 1 << 17
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class _File(NamedTuple):
    """A file of a load."""

    path: str
    identity: Identity


class _Open(NamedTuple):
    """A descriptor of ours."""

    number: int
    mark: int
    """Its position in the file, which no read of ours moves: the host's own descriptors have another."""


def identity_of(status: os.stat_result, *, local: bool) -> Identity:
    """Returns what tells a file from others, and from what it may become."""
    if not local:
        return Identity(status.st_size, status.st_mtime_ns)
    return Identity(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


class KeptFiles:
    """The files that the loads of one recording have found.

    Args:
        directory: Where the journal is; copies of headers go there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._open: dict[_File, _Open] = {}
        """The oldest first."""
        self._asked: dict[_File, None] = {}
        """All that the open loads have asked for and found."""
        self._pending: dict[_File, None] = {}
        """The weight files among them."""
        self._settled: set[_File] = set()
        """Weight files whose headers were copied, or cannot be."""
        # Nobody else reads from so odd a place, and every file system knows positions of 31 bits.
        self._marks = itertools.count((1 << 30) + int.from_bytes(os.urandom(3), "little"))
        self._copies = self._copied_bytes = 0
        self._local: dict[int, bool] = {}
        """By the number of a device: whether its file system is of this machine."""

    # -- while a load runs ----------------------------------------------------------------------------

    def found(self, path: str) -> Identity | None:
        """Returns the identity of a file that a load has found; None where it is not there."""
        identity = self.identity(path)
        if identity is not None and len(self._asked) < MAX_ASKED:
            self._asked[_File(path, identity)] = None
        return identity

    def identity(self, path: str) -> Identity | None:
        """Returns the same of a file that no load has asked for."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        return identity_of(status, local=self._is_local(path, status))

    def resolved(self, path: str) -> Identity | None:
        """Returns the same of a weight file, and keeps it open."""
        identity = self.found(path)
        if identity is not None and (file := _File(path, identity)) not in self._pending:
            with self._lock:
                self._keep(file)
                self._pending[file] = None
        return identity

    def resident_share(self, path: str, identity: Identity | None) -> float | None:
        """Returns the share of a file that is in the page cache, 0 to 1; None if unknown."""
        if identity is not None:
            with self._lock:
                number = self._number(_File(path, identity))
                if number is not None:
                    return resident_share_of(number, identity.size)
        return resident_share(path)

    def _is_local(self, path: str, status: os.stat_result) -> bool:
        known = self._local.get(status.st_dev)
        if known is None:
            known = self._local[status.st_dev] = is_local(path)
        return known

    def _keep(self, file: _File) -> None:
        """Opens a file that is what it was, unless it is none of this machine, or there are too many."""
        if file.identity.inode is None or self._number(file) is not None or not self._make_room():
            return
        with contextlib.suppress(OSError, ValueError):
            number = _opened(file.path)
            try:
                limit = open_files_limit()
                # The lowest free number is taken: a high one means that the host has use for the rest.
                spare = limit is None or number < limit - limit // SHARE
                if number > 2 and spare and _is_still(number, file.identity):
                    mark = next(self._marks)
                    os.lseek(number, mark, os.SEEK_SET)
                    self._open[file] = _Open(number, mark)
            finally:
                if file not in self._open:
                    os.close(number)

    def _make_room(self) -> bool:
        """Lets go of the oldest whose load has returned, where there are too many.

        Returns:
            Whether one more may be opened.
        """
        limit = open_files_limit()
        most = MAX_DESCRIPTORS if limit is None else min(MAX_DESCRIPTORS, limit // SHARE)
        if len(self._open) >= most:
            oldest = next((file for file in self._open if file not in self._pending), None)
            if oldest is not None:
                self._let_go(oldest)
        return len(self._open) < most

    # -- after a load ---------------------------------------------------------------------------------

    def returned(self, *, failed: bool, last: bool) -> list[lines.Kept]:
        """Copies the headers of the weight files of a load whose clock has stopped.

        Args:
            failed: Whether it has failed: all files that it asked for are kept open then, because what is
                wrong with them is said later.
            last: Whether no other load runs.

        Returns:
            What to write into the journal.
        """
        if not self._pending and not self._asked:
            return []
        with self._lock:
            # What another thread's load finds meanwhile is that one's to end.
            pending, asked = list(self._pending), list(self._asked)
            copied = [line for file in pending if (line := self._copied(file)) is not None]
            for file in asked if failed else ():
                self._keep(file)
            if last:
                for file in pending:
                    self._pending.pop(file, None)
                for file in asked:
                    self._asked.pop(file, None)
                held = 0
                for file in reversed(list(self._open)):
                    held += file.identity.size
                    if held > MAX_HELD_BYTES:
                        self._let_go(file)
            return copied

    def _copied(self, file: _File) -> lines.Kept | None:
        """Copies the header of a weight file, unless it has none, or is not what it was."""
        if file in self._settled:
            return None
        self._settled.add(file)
        with contextlib.suppress(OSError, ValueError):
            number = self._number(file)
            if number is not None:
                return self._copied_from(number, file)
            number = _opened(file.path)
            try:
                return self._copied_from(number, file)
            finally:
                os.close(number)
        return None

    def _copied_from(self, number: int, file: _File) -> lines.Kept | None:
        if not _is_still(number, file.identity):
            return None
        length = _header_bytes(number, file)
        if not length or self._copied_bytes + length > MAX_COPIED_BYTES or not self._has_room(length):
            return None
        self._copies += 1
        name = journal.copy_name(self._pid, self._copies)
        if not _copy(number, length, self._directory / name):
            return None
        self._copied_bytes += length
        return lines.Kept(file.path, file.identity, name)

    def _has_room(self, length: int) -> bool:
        """Returns whether a copy would leave room enough for the journal beside it."""
        room = os.statvfs(self._directory)
        return length <= room.f_bavail * room.f_frsize // 8

    # -- until the recording ends ---------------------------------------------------------------------

    def opened(self, path: str, identity: Identity) -> str | None:
        """Returns where a file can be read that is open, and what it was; None where there is none."""
        with self._lock:
            number = self._number(_File(path, identity))
            if number is None or not _is_still(number, identity):
                return None
        place = f"/proc/self/fd/{number}"
        return place if os.path.exists(place) else None

    def close(self) -> None:
        """Closes all of them."""
        with self._lock:
            for file in list(self._open):
                self._let_go(file)

    def abandon(self) -> None:
        """Lets go of everything in a child after a fork: what is open here is a copy of its parent's."""
        self._lock = threading.RLock()  # a thread that the child does not have may hold it
        self.close()

    def _number(self, file: _File) -> int | None:
        """Returns the descriptor of a file; None where there is none, or it is not ours any more."""
        known = self._open.get(file)
        if known is None:
            return None
        try:
            status = os.fstat(known.number)
            same = (status.st_ino, status.st_dev) == (file.identity.inode, file.identity.device)
            if same and os.lseek(known.number, 0, os.SEEK_CUR) == known.mark:
                return known.number
        except OSError:
            pass
        del self._open[file]  # the host has closed it, and may have another file by this number
        return None

    def _let_go(self, file: _File) -> None:
        number = self._number(file)
        if number is not None:
            del self._open[file]
            with contextlib.suppress(OSError):
                os.close(number)


def _opened(path: str) -> int:
    """Opens a regular file, and nothing else: a pipe would notice.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return os.open(path, _FLAGS)


def _is_still(number: int, identity: Identity) -> bool:
    """Returns whether an open file is the one of this identity, and nobody has written to it since."""
    status = os.fstat(number)
    local = identity.inode is not None
    return stat.S_ISREG(status.st_mode) and identity_of(status, local=local) == identity


def _header_bytes(number: int, file: _File) -> int:
    """Returns how long the beginning of a file is that says what is in it; 0 where no header does."""
    suffix, size = os.path.splitext(file.path)[1], file.identity.size
    if suffix == ".gguf":
        return min(size, GGUF_BYTES)
    if suffix != ".safetensors":
        return 0
    length = int.from_bytes(os.pread(number, 8, 0), "little")
    return min(size, max(HEAD_BYTES, 8 + length if length <= MAX_HEADER_BYTES else 0))


def _copy(number: int, length: int, path: Path) -> bool:
    """Copies the beginning of a file; returns whether all of it is there now."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    target = os.open(path, flags, 0o600)
    done = 0
    try:
        while done < length:
            piece = os.pread(number, min(_PIECE, length - done), done)
            if not piece or os.write(target, piece) != len(piece):
                break
            done += len(piece)
    finally:
        os.close(target)
        if done < length:
            path.unlink(missing_ok=True)
    return done == length
