"""What a process of this machine may use at most: memory and processors."""

from __future__ import annotations

import os

from hftrace.system import cgroups


def ram_bytes() -> int | None:
    """Returns the machine's memory, in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def binding_cgroup_limit_bytes() -> int | None:
    """Returns the memory limit of this process's control groups; None without one that is below the RAM."""
    limit, total = cgroups.cgroup_limit_bytes(), ram_bytes()
    return limit if limit is not None and (total is None or limit < total) else None


def usable_cpu_count() -> int | None:
    """Returns how many processors this process may run on; None where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
