"""Finds the memory control group of a process: its limit, its current use, its pressure, its OOM kills.

Linux knows two versions. In version 1 the ``memory`` controller has a
hierarchy of its own (``memory.limit_in_bytes``); in version 2 all controllers
share one (``memory.max``). Both may be mounted at once; the memory controller
then belongs to one of them. A limit anywhere above a group holds for it too,
and inside a container the groups above cannot be seen, except for the sum
that version 1 gives in ``memory.stat``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NO_LIMIT = 1 << 62
"""Version 1 says "no limit" with a number near 2**63."""


@dataclass(frozen=True)
class MemoryGroup:
    """The control group that a process's memory is charged to.

    Args:
        version: 1 or 2.
        mount: Where the hierarchy is mounted.
        path: The group's own directory, at or below ``mount``.
    """

    version: int
    mount: Path
    path: Path

    @property
    def usage_file(self) -> Path:
        """The file that holds the bytes charged now, page cache included."""
        return self.path / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")

    @property
    def pressure_file(self) -> Path | None:
        """The file with the group's memory stall times; version 1 has none."""
        return self.path / "memory.pressure" if self.version == 2 else None

    def limit_bytes(self) -> int | None:
        """Returns the smallest limit of the group and of those above it; None without one."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        limits = [_number(group / name) for group in self._lineage()]
        if self.version == 1:
            # What lies above a container's own root is known to the kernel only.
            limits.append(_field(self.path / "memory.stat", "hierarchical_memory_limit"))
        return min((limit for limit in limits if limit is not None and limit < NO_LIMIT), default=None)

    def oom_kills(self) -> int | None:
        """Returns how many processes of the group the kernel has killed for want of memory so far."""
        if self.version == 2:
            return _field(self.path / "memory.events", "oom_kill")
        return _field(self.path / "memory.oom_control", "oom_kill")

    def _lineage(self) -> Iterator[Path]:
        """Yields the group and those above it whose limits hold for it."""
        group = self.path
        yield group
        while group != self.mount and group != group.parent:
            group = group.parent
            if self.version == 1 and _number(group / "memory.use_hierarchy") == 0:
                return  # an old kernel's group that does not count what is below it
            yield group


def memory_group(pid: int | str = "self", root: str | os.PathLike[str] = "/") -> MemoryGroup | None:
    """Returns the memory control group of a process.

    Args:
        pid: The process.
        root: Where ``/proc`` and ``/sys`` are.

    Returns:
        None where there is no such process, or no memory controller to be seen.
    """
    base = Path(root)
    try:
        memberships = (base / f"proc/{pid}/cgroup").read_text().splitlines()
        mounts = (base / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, ValueError):
        return None
    paths: dict[int, str] = {}
    for line in memberships:
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if controllers == "" and number == "0":
            paths[2] = path
        elif "memory" in controllers.split(","):
            paths[1] = path
    for version in (1, 2):
        if version not in paths:
            continue
        for inside, mount in _mounts(mounts, version):
            group = _directory(base, mount, inside, paths[version])
            found = MemoryGroup(version, _below(base, mount), group)
            if found.usage_file.exists() or (group / "memory.max").exists():
                return found
    return None


def cgroup_limit_bytes(pid: int | str = "self", root: str | os.PathLike[str] = "/") -> int | None:
    """Returns the memory limit, in bytes, that the control groups of a process set; None without one.

    Args:
        pid: The process.
        root: Where ``/proc`` and ``/sys`` are.
    """
    group = memory_group(pid, root)
    return group.limit_bytes() if group is not None else None


def _mounts(lines: list[str], version: int) -> Iterator[tuple[str, str]]:
    """Yields (group that is mounted, mount point) of each hierarchy that may hold the memory controller."""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if len(fields) < 5 or not kinds:
            continue
        options = kinds[2].split(",") if len(kinds) > 2 else []
        if (version == 2 and kinds[0] == "cgroup2") or (
            version == 1 and kinds[0] == "cgroup" and "memory" in options
        ):
            yield fields[3].replace("\\040", " "), fields[4].replace("\\040", " ")


def _directory(base: Path, mount: str, inside: str, path: str) -> Path:
    """Returns a group's directory; a mount may show a part of the hierarchy that its path starts at."""
    top = _below(base, mount)
    if inside != "/" and (path == inside or path.startswith(f"{inside}/")):
        path = path[len(inside) :]
    group = top / path.strip("/") if ".." not in path.split("/") else top
    # In a container the path may be that of the host, and the mount the container's own group.
    return group if group.is_dir() else top


def _below(base: Path, mount: str) -> Path:
    return base / mount.lstrip("/")


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdigit() else None


def _field(path: Path, name: str) -> int | None:
    """Returns a number from a file of lines ``name number``."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return None
