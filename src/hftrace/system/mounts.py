"""Which file system a path lies on."""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
LOCAL = frozenset((
    "bcachefs", "btrfs", "cramfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs",
    "iso9660", "jfs", "minix", "nilfs2", "ntfs3", "overlay", "ramfs", "reiserfs", "squashfs",
    "tmpfs", "udf", "vfat", "xfs", "zfs",
))  # fmt: skip
"""File systems of the kernel on disks and in memory of this machine: a file that is deleted while it is open
is simply gone from its folder, and the number of a file is its own."""


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


def is_local(path: str) -> bool:
    """Returns whether a path lies on one of :data:`LOCAL`; False if unknown."""
    return file_system_of(path) in LOCAL
