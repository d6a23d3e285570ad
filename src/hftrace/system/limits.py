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


RESOURCES = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_RSS", "RLIMIT_MEMLOCK", "RLIMIT_NOFILE")


def resource_limits() -> dict[str, int]:
    """Returns the limits of this process that are set, by name: bytes, and a number of files for NOFILE."""
    try:
        import resource
    except ImportError:  # no system of Unix's kind
        return {}
    numbers = {name: getattr(resource, name) for name in RESOURCES if hasattr(resource, name)}
    limits = {name: resource.getrlimit(number)[0] for name, number in numbers.items()}
    return {name: limit for name, limit in limits.items() if 0 <= limit < 1 << 62}


def open_files_limit() -> int | None:
    """Returns how many files this process may have open; None if unknown."""
    try:
        import resource
    except ImportError:  # no system of Unix's kind
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit if 0 <= limit < 1 << 62 else None


def address_space() -> dict[str, int]:
    """Returns what counts against RLIMIT_AS and RLIMIT_DATA, in bytes; nothing where it cannot be read."""
    names = {"VmSize": "RLIMIT_AS", "VmData": "RLIMIT_DATA"}
    found = {}
    try:
        with open("/proc/self/status", "rb") as handle:
            for line in handle.read().decode("ascii", "replace").splitlines():
                name, _, value = line.partition(":")
                if name in names:
                    found[names[name]] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return {}
    return found
