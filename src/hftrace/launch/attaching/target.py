"""Finds a process that is to be traced while it runs, and says in one sentence why it cannot be."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hftrace.errors import HftraceError, UsageError
from hftrace.launch.watchdog import dump_of
from hftrace.schema.redact import redact
from hftrace.system import attachment
from hftrace.system.processes import start_ticks
from hftrace.system.waits import waits_of

MAX_NAMED = 5
REMOTE = (3, 14)
"""The first Python that lets another process run code in it (``sys.remote_exec``)."""


class Target(NamedTuple):
    """A process that is there.

    Args:
        pid: Its number.
        ticks: When it was started: with the number its identity.
        variables: What it was started with, as far as it can be read.
    """

    pid: int
    ticks: int
    variables: Mapping[str, str]

    def lives(self) -> bool:
        """Returns whether it still runs."""
        return start_ticks(self.pid) == self.ticks

    def socket(self) -> str | None:
        """Returns the socket at which it waits; None where there is none."""
        user = os.geteuid()
        # A program may have written over what it was started with, as those do that set their own title.
        places = [*attachment.folders(self.variables, user), *attachment.folders(os.environ, user)]
        for folder in dict.fromkeys([*places, f"/run/user/{user}/hftrace", f"/tmp/hftrace-{user}"]):
            with contextlib.suppress(OSError):
                found = os.lstat(folder)
                path = attachment.socket_path(folder, self.pid)
                if found.st_uid == user and stat.S_ISSOCK(os.lstat(path).st_mode):
                    return path
        return None

    def stacks(self, socket: str) -> str | None:
        """Returns the stacks of its threads, as the process writes them without its interpreter's lock.

        Args:
            socket: Where it waits.
        """
        path = attachment.stacks_path(os.path.dirname(socket), self.pid)
        with contextlib.suppress(OSError):
            opened = (os.readlink(entry.path) for entry in os.scandir(f"/proc/{self.pid}/fd"))
            # Who has closed what is not its own would write them to a file of its own.
            if path in opened and self.lives():
                text = _with_frames(dump_of(self.pid, Path(path)))
                os.truncate(path, 0)
                return text
        return None

    def waits(self) -> str:
        """Returns what its main thread waits for, and what holds it, in words; nothing if unknown."""
        found = waits_of(self.pid, self.pid)
        if found is None:
            return ""
        return f"{found.call} of {redact(found.file)}" if found.file else found.call


def _with_frames(text: str | None) -> str | None:
    """Returns a dump of stacks without the threads that run no code of the program's."""
    parts = [] if text is None else [part for part in text.split("\n\n") if "\n" in part.strip()]
    return "\n\n".join(parts) or None


def find_target(pid: int) -> Target:
    """Returns the process of this number.

    Raises:
        UsageError: There is none, or it is none that this user may look into from here.
    """
    if not os.path.isdir("/proc/self"):
        raise UsageError("hftrace attach needs /proc, which this system has not")
    ticks = start_ticks(pid)
    if ticks is None:
        raise UsageError(f"there is no process {pid}{_others()}")
    user = os.stat(f"/proc/{pid}").st_uid
    if user != os.geteuid():
        name = _user_name(user)
        raise UsageError(f"process {pid} belongs to {name}: run hftrace attach as {name}")
    for space in ("mnt", "pid"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/{space}") != os.readlink(f"/proc/self/ns/{space}"):
                raise UsageError(f"process {pid} runs in another container: run hftrace attach in that one")
    return Target(pid, ticks, _variables(pid))


def refusal(target: Target) -> HftraceError:
    """Returns why a process cannot be attached to that has no socket."""
    asked, pid = target.variables.get(attachment.VARIABLE, ""), target.pid
    if target.variables.get("HFTRACE_RUN"):
        return UsageError(f"process {pid} is traced already: hftrace run has started it")
    if asked and not attachment.is_wait(asked):
        return UsageError(f"process {pid} is traced already, since its start: HFTRACE={asked}")
    if asked:
        return UsageError(
            f"process {pid} was started with HFTRACE={asked} and does not wait: is hftrace installed for its "
            "interpreter, and does it run Python without -I, -E and -S?"
        )
    later = (
        "" if sys.version_info >= REMOTE else "; under Python 3.14 and later hftrace attach needs no variable"
    )
    return UsageError(
        f"process {pid} does not wait to be traced: start it with HFTRACE=wait in its environment"
        f"{later}{_others()}"
    )


def waiting_processes() -> list[int]:
    """Returns the processes of this user that wait, as far as this process's own folder has them."""
    found = []
    for folder in attachment.folders(os.environ, os.geteuid()):
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                number = name.removesuffix(attachment.SUFFIX)
                if name != number and number.isdigit() and start_ticks(int(number)) is not None:
                    found.append(int(number))
    return sorted(set(found))


def _others() -> str:
    others = waiting_processes()
    if not others:
        return ""
    named = ", ".join(map(str, others[:MAX_NAMED])) + (", ..." if len(others) > MAX_NAMED else "")
    return f" (waiting: {named})"


def _variables(pid: int) -> dict[str, str]:
    """Returns what a process was started with; none of it is ever written anywhere but what names hftrace."""
    with contextlib.suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        known = ("HFTRACE", "HFTRACE_RUN", "XDG_RUNTIME_DIR", "TMPDIR")
        found = (os.fsdecode(pair).partition("=") for pair in pairs)
        return {name: value for name, _, value in found if name in known}
    return {}


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
