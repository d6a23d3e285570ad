"""Where a process that waits to be traced is found: a socket by its number, in a folder of its user's alone.

Both sides come here, and the waiting one at its start: nothing of weight is imported.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum, which takes longest of all here
import os
import stat
import sys

TYPE_CHECKING = False
"""As typing has it, which takes time to import."""
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "HFTRACE"
WAIT = ("wait", "wait:{pid}")
"""What the variable says for a process that waits."""
SUFFIX = ".sock"
STACKS_SUFFIX = ".stacks"
"""Of the file that takes the stacks of a process which cannot answer, beside its socket."""
STACKS_SIGNAL: int = getattr(_signal, "SIGRTMAX", 64) - 7
"""Asks for them. SIGUSR1 and SIGUSR2 belong to the programs that are traced: servers use both."""
FOLDER_MODE, SOCKET_MODE = 0o700, 0o600
MAX_PATH_BYTES = 107
"""The kernel's limit of a socket's address (``sun_path``), without its end."""
MAX_CREDENTIALS = 12
"""Bytes of ``struct ucred``: process, user and group."""


def is_wait(value: str) -> bool:
    """Returns whether a value of the variable asks to wait, and names no trace."""
    return value in WAIT


def folders(variables: Mapping[str, str], user: int) -> list[str]:
    """Returns where the sockets of a user's processes may be, the place that they choose first.

    Args:
        variables: The environment of the process.
        user: Its user.
    """
    own = variables.get("XDG_RUNTIME_DIR", "")
    found = [os.path.join(own, "hftrace")] if os.path.isabs(own) and os.path.isdir(own) else []
    return [*found, os.path.join(variables.get("TMPDIR") or "/tmp", f"hftrace-{user}")]


def make_folder(variables: Mapping[str, str]) -> str:
    """Makes the folder for the sockets of this user, and returns it.

    Raises:
        OSError: It cannot be made, or is not this user's alone.
    """
    user = os.geteuid()
    failure: OSError | None = None
    for folder in folders(variables, user):
        try:
            os.makedirs(folder, FOLDER_MODE, exist_ok=True)
            found = os.lstat(folder)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != user:
                raise PermissionError(f"{folder} belongs to somebody else")
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise PermissionError(f"{folder} is open to others")
            return folder
        except OSError as error:
            failure = failure or error
    assert failure is not None  # there is at least one folder
    raise failure


def socket_path(folder: str, pid: int) -> str:
    """Returns the socket of a process.

    Raises:
        OSError: The path is longer than an address may be.
    """
    path = os.path.join(folder, f"{pid}{SUFFIX}")
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise OSError(f"{path} is too long for a socket: set XDG_RUNTIME_DIR or TMPDIR to a shorter folder")
    return path


def stacks_path(folder: str, pid: int) -> str:
    """Returns where a process writes the stacks of its threads when it is asked to by the signal."""
    return os.path.join(folder, f"{pid}{STACKS_SUFFIX}")


def forget_dead(folder: str) -> None:
    """Deletes what is left of processes that are gone, which had no time to do so."""
    for name in os.listdir(folder):
        pid, dot, suffix = name.partition(".")
        if dot + suffix in (SUFFIX, STACKS_SUFFIX) and pid.isdigit() and not os.path.isdir(f"/proc/{pid}"):
            try:
                os.unlink(os.path.join(folder, name))
            except OSError:
                pass  # somebody else was faster


def credentials(raw: bytes) -> tuple[int, int]:
    """Returns process and user of the other side of a connection, as ``SO_PEERCRED`` gives them."""
    return int.from_bytes(raw[:4], sys.byteorder), int.from_bytes(raw[4:8], sys.byteorder)
