"""What ``hftrace floor`` has measured on this machine, kept by file system: the best that it can do.

One JSON file in the cache (``HFTRACE_CACHE``, else ``hftrace`` in ``XDG_CACHE_HOME`` or ``~/.cache``) holds
the figures of each machine and file system with their date. Nothing here measures: a trace only takes up
what somebody has asked for before.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from hftrace.system.mounts import mount_of

FILE = "floors.json"
MAX_BYTES = 1 << 20
"""More than that is no file of ours."""


def floors_file() -> Path:
    """Returns where the figures are; it need not exist."""
    own = os.environ.get("HFTRACE_CACHE")
    if own:
        return Path(own).expanduser() / FILE
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "hftrace" / FILE


def key_of(path: str) -> str | None:
    """Returns what tells this machine and the file system of ``path`` from others; None if unknown."""
    mount = mount_of(path)
    if mount is None:
        return None
    return f"{platform.node()} {platform.machine()} {os.cpu_count()} {mount.type} {mount.point}"


def known_floors(path: str) -> dict[str, Any] | None:
    """Returns what was measured on this machine for the file system of ``path``; None where nothing was."""
    found = _all().get(key_of(path) or "")
    return found if isinstance(found, dict) else None


def keep_floors(path: str, figures: dict[str, Any]) -> Path | None:
    """Keeps figures for the file system of ``path``; returns the file, or None where it is not known.

    Raises:
        OSError: The cache cannot be written.
    """
    key, target = key_of(path), floors_file()
    if key is None:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{FILE}-")
    try:
        with open(number, "w", encoding="utf-8") as file:
            json.dump({**_all(), key: figures}, file, indent=1)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    return target


def storage_facts(path: str) -> dict[str, Any]:
    """Returns what a trace says of the storage that a weight file is on."""
    mount = mount_of(path)
    facts: dict[str, Any] = {"filesystem": mount.type if mount is not None else None}
    if mount is not None:
        facts["mount_options"] = mount.options
    if (floors := known_floors(path)) is not None:
        facts["floors"] = floors
    return facts


def _all() -> dict[str, Any]:
    try:
        with open(floors_file(), "rb") as file:
            found = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
