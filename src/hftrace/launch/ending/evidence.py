"""Reads from outside what may tell why a process died: limits, counters, the kernel's log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hftrace.system.cgroups import MemoryGroup, memory_group
from hftrace.system.kernel_log import system_kills
from hftrace.system.limits import ram_bytes


class OomCounters:
    """Looks at limits and counters before a load, and again after its end.

    Args:
        group: The memory control group of the load.
        before: Counters from an earlier time; None reads them now.
    """

    def __init__(self, group: MemoryGroup | None, before: dict[str, Any] | None = None) -> None:
        self.group = group
        self.before = self.counters() if before is None else before

    @classmethod
    def snapshot(cls) -> OomCounters:
        """Returns the counters of this process's group, which its children begin in."""
        return cls(memory_group())

    @classmethod
    def restore(cls, group: dict[str, Any], before: dict[str, Any]) -> OomCounters:
        """Returns counters from what another process left in a file: its group's facts, and counters."""
        try:
            found = MemoryGroup(int(group["version"]), Path(group["mount"]), Path(group["path"]))
        except (KeyError, TypeError, ValueError):
            return cls(None, before)
        return cls(found, before)

    def group_facts(self) -> dict[str, Any]:
        """Returns which group it is, for a file."""
        if self.group is None:
            return {}
        return {"version": self.group.version, "mount": str(self.group.mount), "path": str(self.group.path)}

    def counters(self) -> dict[str, Any]:
        """Returns how many processes the kernel has killed so far because memory ran out."""
        return {
            "group_kills": self.group.oom_kills() if self.group is not None else None,
            "system_kills": system_kills(),
        }

    def limits(self) -> dict[str, int | None]:
        """Returns the limits that apply, in bytes: of the control groups, and of the machine."""
        return {
            "cgroup_bytes": self.group.limit_bytes() if self.group is not None else None,
            "ram_bytes": ram_bytes(),
        }

    def delta(self, name: str) -> int | None:
        """Returns by how much a counter has grown; None where it cannot be read, or has begun anew."""
        before, now = self.before.get(name), self.counters()[name]
        if not isinstance(before, int) or not isinstance(now, int) or now < before:
            return None
        return now - before
