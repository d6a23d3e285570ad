"""Which machine this is, as far as two traces have to know whether theirs is the same."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from typing import Any

BOOT_ID = "/proc/sys/kernel/random/boot_id"
TIME_NAMESPACE = "/proc/self/ns/time"
DIGITS = 16


def machine_facts() -> dict[str, Any]:
    """Returns the name of the machine, which clock it has, and how far the wall clock is before that.

    ``clock`` is equal where two processes have the same monotonic clock: a digest of the kernel's number of
    this boot and of the name space of its clocks, so all containers have it that were given no clock of
    their own. None where the kernel does not say.
    """
    return {
        "host": socket.gethostname(),
        "clock": _clock(),
        "wall_offset_ns": time.time_ns() - time.monotonic_ns(),
    }


def _clock() -> str | None:
    try:
        with open(BOOT_ID, encoding="ascii") as handle:
            boot = handle.read().strip()
    except (OSError, ValueError):
        return None
    try:
        own = os.readlink(TIME_NAMESPACE)
    except OSError:
        own = ""  # a kernel that knows none
    return hashlib.sha256(f"{boot} {own}".encode()).hexdigest()[:DIGITS]
