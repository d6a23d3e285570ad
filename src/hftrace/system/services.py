"""Which processes ``multiprocessing`` keeps for itself; asked at the start of each: nothing is imported."""

from __future__ import annotations

import sys

_SERVICES = ("from multiprocessing.resource_tracker import", "from multiprocessing.forkserver import")
"""What they run."""


def is_service() -> bool:
    """Returns whether this process is one that ``multiprocessing`` keeps for itself."""
    return any(word.startswith(_SERVICES) for word in sys.orig_argv)
