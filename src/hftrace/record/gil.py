"""Whether this interpreter has its global lock, on which the recorder relies."""

from __future__ import annotations

import sys


def refusal() -> str | None:
    """Returns why nothing can be recorded in this process; None where it can."""
    # Python 3.13 on. A free-threaded build takes the lock again where a library asks for it.
    enabled = getattr(sys, "_is_gil_enabled", None)
    if enabled is None or enabled():
        return None
    return (
        "hftrace cannot record in a free-threaded interpreter: its buffers rely on the global lock; "
        "set PYTHON_GIL=1"
    )
