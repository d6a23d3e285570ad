"""Facts about the loading process: versions, machine, limits and the variables that matter."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from hftrace.record.device import DeviceMemory
from hftrace.schema.redact import redact_value
from hftrace.system import cgroups

LIBRARIES = (
    "torch",
    "transformers",
    "accelerate",
    "safetensors",
    "huggingface_hub",
    "tokenizers",
    "peft",
    "bitsandbytes",
    "torchao",
    "compressed_tensors",
    "gguf",
    "hqq",
    "numpy",
)
VARIABLES = ("HF_", "TRANSFORMERS_", "SAFETENSORS_", "CUDA_", "PYTORCH_", "HUGGINGFACE_", "OMP_NUM_THREADS")


def library_versions() -> dict[str, str | None]:
    """Returns the versions of the imported libraries; others are None, and are not imported for this."""
    return {
        name: str(getattr(sys.modules[name], "__version__", "")) or None if name in sys.modules else None
        for name in LIBRARIES
    }


def relevant_variables() -> dict[str, Any]:
    """Returns the environment variables that change a load, without secrets."""
    return {
        name: redact_value(value, name)
        for name, value in sorted(os.environ.items())
        if name.startswith(VARIABLES)
    }


def ram_bytes() -> int | None:
    """Returns the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def cgroup_limit_bytes() -> int | None:
    """Returns the memory limit of this process's control groups; None without one that is below the RAM."""
    limit, total = cgroups.cgroup_limit_bytes(), ram_bytes()
    return limit if limit is not None and (total is None or limit < total) else None


def file_system_of(path: str) -> str | None:
    """Returns the type of the file system of ``path`` (``ext4``, ``nfs4``, ``fuse.x``); None if unknown."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    real = os.path.realpath(path)
    best = ("", None)
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, right.split()[0])  # type: ignore[assignment]
    return best[1]


def devices() -> list[dict[str, Any]]:
    """Returns the accelerators that torch has in use; never initialises one."""
    return DeviceMemory().describe()


def device_memory() -> dict[str, Any]:
    """Returns how the figures of devices were obtained, or why there are none, and the pinned host memory."""
    memory = DeviceMemory()
    reason = memory.why_not()
    return {
        "source": None if reason else "torch's allocator",
        "reason": reason,
        "pinned_bytes": memory.pinned_bytes(),
    }


def collect() -> dict[str, Any]:
    """Returns the environment block of a trace, short of what only the caller knows."""
    return {
        "python": platform.python_version(),
        **library_versions(),
        "os": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "usable_cpu_count": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "ram_bytes": ram_bytes(),
        "cgroup_limit_bytes": cgroup_limit_bytes(),
        "devices": devices(),
        "device_memory": device_memory(),
        "variables": relevant_variables(),
    }
