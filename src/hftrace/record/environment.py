"""Facts about the loading process: versions, machine, limits and the variables that matter."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from hftrace.record.device import DeviceMemory
from hftrace.schema.redact import redact_value
from hftrace.system import limits

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
    "diffusers",
    "sentence_transformers",
    "timm",
    "open_clip",
    "numpy",
)
VARIABLES = (
    *("HF_", "TRANSFORMERS_", "SAFETENSORS_", "CUDA_", "PYTORCH_", "HUGGINGFACE_", "OMP_NUM_THREADS"),
    *("ACCELERATE_", "FSDP_"),
)


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
        "host": platform.node() or None,
        "cpu_count": os.cpu_count(),
        "usable_cpu_count": limits.usable_cpu_count(),
        "ram_bytes": limits.ram_bytes(),
        "cgroup_limit_bytes": limits.binding_cgroup_limit_bytes(),
        "resource_limits": limits.resource_limits(),
        "devices": devices(),
        "device_memory": device_memory(),
        "variables": relevant_variables(),
    }
