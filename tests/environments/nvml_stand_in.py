"""An NVML for the stand-in of the CUDA runtime: what all processes have in use of each device.

gpu.py puts it on the path as ``pynvml``. As on a real GPU there are some hundred MB in use before any process
has touched the device, and each process's context counts. ``CUDA_STAND_IN_NVML=0`` takes it away again, as
where nvidia-ml-py is not installed or no driver runs.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

DEVICES = 8
DRIVER_BYTES = 100 << 20
"""What the driver keeps for itself, which no process is told of."""


class NVMLError(Exception):
    """What nvidia-ml-py raises."""


class Memory(NamedTuple):
    """Of one device, in bytes."""

    total: int
    free: int
    used: int


def nvmlInit() -> None:
    """Begins.

    Raises:
        NVMLError: There is no driver.
    """
    if os.environ.get("CUDA_STAND_IN_NVML") == "0" or not os.environ.get("CUDA_STAND_IN_STATE"):
        raise NVMLError("Driver Not Loaded")


def nvmlShutdown() -> None:
    """Ends."""


def nvmlDeviceGetCount() -> int:
    """Returns how many devices there are."""
    return min(DEVICES, int(os.environ.get("CUDA_STAND_IN_DEVICES") or 1))


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    """Returns what stands for a device."""
    if not 0 <= index < nvmlDeviceGetCount():
        raise NVMLError("Invalid Argument")
    return index


def nvmlDeviceGetMemoryInfo(handle: int) -> Memory:
    """Returns what is in use of a device, by all processes."""
    total = int(os.environ.get("CUDA_STAND_IN_BYTES") or 4096 << 20)
    used = DRIVER_BYTES + int(os.environ.get("CUDA_STAND_IN_OTHERS") or 500 << 20)
    place = os.environ["CUDA_STAND_IN_STATE"]
    for name in os.listdir(place):
        path = os.path.join(place, name)
        try:
            os.kill(int(name), 0)
            with open(path, "rb") as file:
                used += struct.unpack(f"{DEVICES}N", file.read())[handle]
        except ProcessLookupError:
            os.unlink(path)  # it has ended, and its memory was given back
        except (OSError, ValueError, struct.error):
            continue
    return Memory(total, max(0, total - used), min(total, used))
