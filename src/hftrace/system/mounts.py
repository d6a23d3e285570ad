"""Which file system a path lies on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

MOUNTS = Path("/proc/self/mountinfo")
SECRET = ("pass", "password", "credentials", "user", "username", "secret", "key", "token", "domain")
"""Options that begin so are not for a trace."""
LOCAL = frozenset((
    "bcachefs", "btrfs", "cramfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs",
    "iso9660", "jfs", "minix", "nilfs2", "ntfs3", "overlay", "ramfs", "reiserfs", "squashfs",
    "tmpfs", "udf", "vfat", "xfs", "zfs",
))  # fmt: skip
"""File systems of the kernel on disks and in memory of this machine: a file that is deleted while it is open
is simply gone from its folder, and the number of a file is its own."""


class Mount(NamedTuple):
    """What is mounted around a path."""

    type: str
    """Of the file system: ``ext4``, ``nfs4``, ``fuse.x``."""
    point: str
    options: str
    """Of this mount, then of the file system: ``rw,relatime,rw``."""


def mount_of(path: str) -> Mount | None:
    """Returns what is mounted around ``path``; None if unknown."""
    try:
        mounts = MOUNTS.read_text().splitlines()
    except OSError:
        return None
    real = os.path.realpath(path)
    found = None
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        if len(fields) < 6 or not more:
            continue
        point = fields[4].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and (found is None or len(point) >= len(found.point)):
            # What is mounted may hold a password (CIFS); where it is in the options it goes.
            options = ",".join(filter(None, (fields[5], more[2] if len(more) > 2 else "")))
            kept = (part for part in options.split(",") if not part.startswith(SECRET))
            found = Mount(more[0], point, ",".join(dict.fromkeys(kept)))
    return found


def file_system_of(path: str) -> str | None:
    """Returns the type of the file system of ``path`` (``ext4``, ``nfs4``, ``fuse.x``); None if unknown."""
    mount = mount_of(path)
    return mount.type if mount is not None else None


def is_local(path: str) -> bool:
    """Returns whether a path lies on one of :data:`LOCAL`; False if unknown."""
    return file_system_of(path) in LOCAL
