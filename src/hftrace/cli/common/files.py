"""Files that a command writes, so that nobody ever sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hftrace.errors import HftraceError


def write_file(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file so that a reader never sees half of it: a new file, then a rename.

    Args:
        target: Its path; a pipe or a device is written to as it is.
        write: Gets what to write to.

    Raises:
        HftraceError: The file cannot be written.
    """
    try:
        target = Path(os.path.realpath(target))
        if target.exists() and not target.is_file():
            with target.open("wb") as stream:  # a pipe or a device cannot be replaced, only written to
                write(stream)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".hftrace-", suffix=".tmp")
        temporary = Path(name)
        try:
            with open(descriptor, "wb") as stream:
                write(stream)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        except BaseException:
            temporary.unlink()
            raise
    except OSError as error:
        raise HftraceError(f"cannot write {target}: {error.strerror or error}") from None


def _umask() -> int:
    """Returns the process's mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
