"""From Python 3.14 on: lets a process that was not started for it wait, by ``sys.remote_exec``.

The code that runs there only opens the socket; all that follows is as with ``HFTRACE=wait``, and at the end
the socket is gone again. No interpreter has run this yet: it is written after the documentation of PEP 768.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftrace.errors import HftraceError
from hftrace.launch.attaching.target import Target

OPEN_SECONDS = 20.0
PAUSE_SECONDS = 0.05
_SOURCE = """
import sys
added = {place!r} not in sys.path
if added:
    sys.path.append({place!r})
try:
    from hftrace.record import waiting
    waiting.begin(once=True)
finally:
    if added:
        sys.path.remove({place!r})
"""


def can_reach() -> bool:
    """Returns whether this interpreter can run code in another process of its own version."""
    return hasattr(sys, "remote_exec")


@contextlib.contextmanager
def opened(target: Target) -> Iterator[str]:
    """Yields the socket of a process that was asked to open one.

    Args:
        target: The process.

    Raises:
        HftraceError: It cannot be reached, or does not come to it.
    """
    remote_exec: Any = getattr(sys, "remote_exec")  # noqa: B009 (there is none before 3.14)
    place = os.fspath(Path(__file__).parents[3])
    with tempfile.TemporaryDirectory(prefix="hftrace-") as folder:
        script = Path(folder, "wait.py")
        script.write_text(_SOURCE.format(place=place), encoding="utf-8")
        try:
            remote_exec(target.pid, os.fspath(script))
        except Exception as error:
            raise HftraceError(
                f"process {target.pid} cannot be reached ({type(error).__name__}: {error}): it needs this "
                "version of Python, and the right to trace it (ptrace_scope, CAP_SYS_PTRACE)"
            ) from None
        until = time.monotonic() + OPEN_SECONDS
        while (path := target.socket()) is None:
            if time.monotonic() > until or not target.lives():
                raise HftraceError(
                    f"process {target.pid} did not come to it in {OPEN_SECONDS:g} s: its main thread "
                    "stands in code that is not Python; HFTRACE=wait at its start needs no main thread"
                )
            time.sleep(PAUSE_SECONDS)
        yield path
