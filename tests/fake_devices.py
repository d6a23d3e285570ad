"""Accelerators that are not there: an allocator that accounts as torch's does, and an NVML that obeys.

Where CI runs there is neither a GPU nor room for the stand-in of tests/environments/gpu.py.
"""

from __future__ import annotations

import json
import types
from pathlib import Path

NVML = '''
"""Says what the file beside it says is in use of each device, in bytes."""
import json, pathlib, types

_USED = pathlib.Path(__file__).with_name("used.json")

def nvmlInit():
    pass

def nvmlDeviceGetCount():
    return len(json.loads(_USED.read_text()))

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetMemoryInfo(handle):
    return types.SimpleNamespace(used=json.loads(_USED.read_text())[handle])
'''


class Allocator:
    """Accounts like torch.cuda: allocated, reserved, and the peak of allocated since the last reset."""

    def __init__(self, count: int = 2) -> None:
        self.allocated = [0] * count
        self.reserved = [0] * count
        self.peak = [0] * count
        self.initialized = True
        self.resets = 0

    def allocate(self, index: int, size: int) -> None:
        self.allocated[index] += size
        self.reserved[index] = max(self.reserved[index], self.allocated[index])
        self.peak[index] = max(self.peak[index], self.allocated[index])

    def is_initialized(self) -> bool:
        return self.initialized

    def device_count(self) -> int:
        return len(self.allocated)

    def memory_allocated(self, index: int) -> int:
        return self.allocated[index]

    def memory_reserved(self, index: int) -> int:
        return self.reserved[index]

    def max_memory_allocated(self, index: int) -> int:
        return self.peak[index]

    def reset_peak_memory_stats(self, index: int) -> None:
        self.resets += 1
        self.peak[index] = self.allocated[index]

    def is_available(self) -> bool:
        return True

    def current_accelerator(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(type="xpu")


class Driver:
    """What the fake NVML says: other processes and contexts, and what the allocator has reserved.

    Args:
        folder: Where the module ``pynvml`` is written.
        others: In use of each device by others, in bytes.
    """

    def __init__(self, folder: Path, others: list[int]) -> None:
        self.folder = folder
        self.others = others
        self.say([0] * len(others))
        (folder / "pynvml.py").write_text(NVML)

    def say(self, reserved: list[int]) -> None:
        """Lets NVML count what an allocator has reserved."""
        used = [other + own for other, own in zip(self.others, reserved, strict=True)]
        new = self.folder / "used.new"
        new.write_text(json.dumps(used))
        new.replace(self.folder / "used.json")
