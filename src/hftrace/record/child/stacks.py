"""Makes this process leave the Python stacks of its threads: when it crashes, and when it is asked to.

:mod:`faulthandler` writes with plain system calls from within the signal's
handler, so it works where nothing of Python does any more. The file stays open
for the rest of the process.
"""

from __future__ import annotations

import faulthandler
import os
from typing import IO

from hftrace.schema.journal import stacks_path
from hftrace.system.attachment import STACKS_SIGNAL

SIGNAL: int | None = STACKS_SIGNAL if hasattr(faulthandler, "register") else None
"""Asks for the stacks."""

_open: list[IO[bytes]] = []
"""Keeps the file from being closed: faulthandler knows its number alone."""


def enable_stack_dumps(directory: str) -> None:
    """Prepares for SIGSEGV, SIGBUS, SIGFPE, SIGABRT and SIGILL, and for :data:`SIGNAL` from the supervisor.

    A process that cannot write there goes on without. Where somebody else has faulthandler write the stacks
    of a crash to another place, that stays so.

    Args:
        directory: Of the run.
    """
    try:
        file = open(stacks_path(directory, os.getpid()), "ab", buffering=0)  # noqa: SIM115 (for good)
    except OSError:
        return
    _open.append(file)
    if not faulthandler.is_enabled():
        faulthandler.enable(file, all_threads=True)
    if SIGNAL is not None:
        faulthandler.register(SIGNAL, file, all_threads=True, chain=False)
