"""Descriptors of our own, told from those of the host under the same number.

A program that makes a daemon of itself closes every descriptor there is, and
opens files of its own, which get the numbers that ours had. To write to such a
number, or to close it, would destroy what is not ours.
"""

from __future__ import annotations

import os
import stat


class Descriptor:
    """A descriptor that knows which file it was opened for.

    Args:
        number: The descriptor, open.
    """

    __slots__ = ("_file", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._file = _file(number)

    @classmethod
    def open(cls, path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> Descriptor:
        """Opens a file, for no program that this process starts.

        Raises:
            OSError: It cannot be opened.
        """
        return cls(os.open(path, flags | os.O_CLOEXEC, mode))

    def is_ours(self) -> bool:
        """Returns whether the number still stands for the file that it was opened for."""
        try:
            return _file(self.number) == self._file
        except OSError:
            return False  # closed

    def close(self) -> None:
        """Closes it, where it is ours still."""
        if self.is_ours():
            os.close(self.number)


def _file(number: int) -> tuple[int, int, int]:
    found = os.fstat(number)
    return found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)
