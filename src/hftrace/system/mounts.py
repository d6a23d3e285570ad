"""Which file system a path lies on."""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")


def file_system_of(path: str) -> str | None:
    """Returns the type of the file system of ``path`` (``ext4``, ``nfs4``, ``fuse.x``); None if unknown."""
    try:
        mounts = MOUNTS.read_text().splitlines()
    except OSError:
        return None
    real = os.path.realpath(path)
    longest, found = "", None
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(longest):
            longest, found = point, right.split()[0]
    return found
