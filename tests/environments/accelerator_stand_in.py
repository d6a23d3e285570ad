"""What torch imports with itself where it is installed: a device ``standin``, no CUDA, MPS or XPU.

The library is built from accelerator_stand_in.cpp, and lies beside this file.
``STAND_IN_INTEGRATED=1``: it says that its memory is the host's.
"""

from __future__ import annotations

import os
import types
from pathlib import Path

import torch

NAME = "standin"
LIBRARY = "libaccelerator_stand_in.so"
DEVICE_BYTES = 1 << 30


def register() -> None:
    """Adds the device to torch, as packages for devices of their own do by this entry point."""
    torch.ops.load_library(str(Path(__file__).with_name(LIBRARY)))
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(f"torch.{NAME}")
    integrated = os.environ.get("STAND_IN_INTEGRATED") == "1"
    functions = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "manual_seed_all": lambda seed: None,
        "device_count": lambda: 2,
        "current_device": lambda: torch._C._accelerator_getDeviceIndex(),
        "set_device": lambda device: torch._C._accelerator_setDeviceIndex(torch.device(NAME, device).index),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: torch._C._accelerator_emptyCache(),
        "mem_get_info": lambda device=0: torch._C._accelerator_getMemoryInfo(torch.device(device).index or 0),
        "get_device_properties": lambda device=0: types.SimpleNamespace(
            name="stand-in", total_memory=DEVICE_BYTES, is_integrated=integrated
        ),
    }
    for name, function in functions.items():
        setattr(module, name, function)
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()
