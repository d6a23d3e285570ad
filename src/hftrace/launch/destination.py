"""Where the traces of a recording go: chosen before its block runs, and never over a file that is there."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from pathlib import Path
from typing import NamedTuple

from hftrace.errors import HftraceError
from hftrace.record.ranks import Rank
from hftrace.schema.trace import Trace

CALL, PID = "{call}", "{pid}"
"""What a path may hold: the number of the block or call, from 1, and the id of the process."""

_claimed: dict[Path, list[Destination]] = {}
"""Files that open recordings of this process will write, each with the one that said so first. Claimed by
``dict.setdefault``, which needs no lock: a lock that is held while the process forks is held for ever."""
os.register_at_fork(after_in_child=_claimed.clear)


class Place(NamedTuple):
    """The file that one block's trace goes to."""

    named: Path
    """As it was asked for, whatever the rank."""
    path: Path
    """Of this rank, as far as it was known when the block began."""


class Destination:
    """The path that was named for a recording; its blocks and calls each have a file of their own.

    The first block is refused where its file is there. Later ones, such as the
    second call of a decorated function, are not: a service that is traced runs
    on, and their traces take the next free number (``out-2.json``).

    Args:
        asked: As the caller named it; None for traces that are kept in memory.
        force: Whether files that are there are overwritten: then every trace has exactly the path
            that was asked for.
    """

    def __init__(self, asked: str | os.PathLike[str] | None, force: bool) -> None:
        self.asked = Path(asked) if asked is not None else None
        self._force = force
        self._begun = 0

    def claim(self, rank: Rank) -> Place | None:
        """Returns where the trace of a block that begins now will go; None for nowhere.

        Raises:
            HftraceError: The file is there already, or cannot be written.
        """
        if self.asked is None:
            return None
        for number in itertools.count(self._begun + 1):
            place = self._place(number, rank)
            if number == 1:
                _check_writable(place.path)
            if not self._force or CALL in os.fspath(self.asked):
                mine = [self]
                others = _claimed.setdefault(place.path, mine)
                if others is not mine:
                    if number == 1 and others[0] is not self:
                        raise HftraceError(
                            f"another recording of this process is going to write {place.path}: "
                            "choose another name for one of them",
                            2,
                        )
                    continue
                if not self._force and place.path.is_file():
                    del _claimed[place.path]
                    if number == 1:
                        raise HftraceError(
                            f"{place.path} exists: choose another name, or force=True to overwrite it", 2
                        )
                    continue
            self._begun = max(self._begun, number)
            return place
        raise AssertionError("numbers do not end")

    def first(self, rank: Rank) -> Place:
        """Returns where the one trace of a program will go, which nobody can refuse any more.

        Where the file is there, the trace takes the next free name as it is saved.

        Raises:
            HftraceError: Nothing can be written there.
        """
        place = self._place(1, rank)
        _check_writable(place.path)
        return place

    def _place(self, number: int, rank: Rank) -> Place:
        """Returns the file of a block by its number, from 1."""
        text = os.path.expanduser(os.fspath(self.asked or ""))
        try:
            text = os.path.abspath(text)
        except FileNotFoundError:
            raise HftraceError(
                f"cannot write a trace to {text}: the working directory is gone; name an absolute path", 2
            ) from None
        filled = Path(text.replace(PID, str(os.getpid())).replace(CALL, str(number)))
        if number > 1 and not self._force and CALL not in text:
            filled = _numbered(filled, number)
        return Place(filled, rank.path(filled))

    def save(self, trace: Trace, place: Place, rank: Rank) -> Path:
        """Writes the trace of a block that has ended; returns where it went.

        That is another name than was chosen where somebody else has made the
        file meanwhile: what was recorded is not thrown away for that.

        Raises:
            HftraceError: The file cannot be written.
        """
        path = rank.path(place.named)
        if self._force:
            trace.save(path)
            return path
        try:
            free = reserve(path)
        except OSError:
            trace.save(path)  # says why it cannot be written
            return path
        try:
            trace.save(free)
        except BaseException:
            _unreserve(free)
            raise
        return free

    def release(self, place: Place) -> None:
        """Says that nothing more will be written for a block."""
        claim = _claimed.get(place.path)
        if claim is not None and claim[0] is self:
            _claimed.pop(place.path, None)


def _numbered(path: Path, number: int) -> Path:
    """Returns the path with a number before its suffix: ``out-2.json``."""
    suffix = next((end for end in (".json.gz", ".json") if path.name.endswith(end)), path.suffix)
    return path.with_name(f"{path.name[: len(path.name) - len(suffix)]}-{number}{suffix}")


def reserve(path: Path) -> Path:
    """Makes an empty file that nobody else has, under this name or the next free one.

    Raises:
        OSError: No file can be made there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        free = _numbered(path, number) if number > 1 else path
        target = os.path.realpath(free)  # a link stays a link: what it points to is written
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            if os.path.isfile(target):
                continue
            # A pipe or a device is written to.
        return free
    raise AssertionError("numbers do not end")


def _unreserve(path: Path) -> None:
    """Deletes a file that was made by :func:`reserve` and is still empty.

    A pipe or a device is empty too, and somebody else's.
    """
    with contextlib.suppress(OSError):
        target = os.path.realpath(path)
        status = os.lstat(target)
        if stat.S_ISREG(status.st_mode) and not status.st_size:
            os.unlink(target)


def _check_writable(path: Path) -> None:
    """Fails before the load and not after it.

    Raises:
        HftraceError: The trace could not be written there.
    """
    folder = path.parent
    try:
        # Path.exists raises where a folder may not be searched, or a name is too long.
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        fits = not path.is_dir() and folder.is_dir() and os.access(folder, os.W_OK)
        with contextlib.suppress(FileNotFoundError):
            path.lstat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HftraceError(f"cannot write a trace to {path}: {reason}; choose another place", 2) from None
    if not fits:
        raise HftraceError(f"cannot write a trace to {path}: no such writable place; choose another", 2)
