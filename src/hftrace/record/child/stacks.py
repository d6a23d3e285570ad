"""Makes this process leave the Python stacks of its threads: when it crashes, and when it is asked to.

:mod:`faulthandler` writes with plain system calls from within the signal's
handler, so it works where nothing of Python does any more. The file stays open
for the rest of the process.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from typing import IO

from hftrace.schema.journal import stacks_path

_open: list[IO[bytes]] = []
"""Keeps the file from being closed: faulthandler knows its number alone."""


def enable_stack_dumps(directory: str) -> None:
    """Prepares for SIGSEGV, SIGBUS, SIGFPE, SIGABRT and SIGILL, and for SIGUSR2 from the supervisor.

    A process that cannot write there goes on without.

    Args:
        directory: Of the run.
    """
    try:
        file = open(stacks_path(directory, os.getpid()), "ab", buffering=0)  # noqa: SIM115 (for good)
    except OSError:
        return
    _open.append(file)
    faulthandler.enable(file, all_threads=True)
    number = getattr(signal, "SIGUSR2", None)
    if number is not None and hasattr(faulthandler, "register"):
        faulthandler.register(number, file, all_threads=True, chain=False)
