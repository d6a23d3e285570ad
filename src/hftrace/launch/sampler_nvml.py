"""A part of the sampler: memory used per CUDA device, as the driver says.

Loaded by :mod:`hftrace.launch.sampler` from beside itself, so it imports the
standard library and pynvml alone.
"""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    # typing would make the start longer.
    from typing import Any


class DeviceReader:
    """Reads the memory used per CUDA device, by all processes, through NVML (``nvidia-ml-py``).

    Devices are named as the loading process numbers them: the entries of
    ``CUDA_VISIBLE_DEVICES`` in their order, else NVML's own order, which is
    CUDA's too unless the devices differ and ``CUDA_DEVICE_ORDER`` is not
    ``PCI_BUS_ID``.

    Args:
        directory: Where the module ``pynvml`` lies.
        visible: The value of ``CUDA_VISIBLE_DEVICES``.

    Raises:
        Exception: Whatever NVML has to complain of.
    """

    def __init__(self, directory: str, visible: str | None) -> None:
        import importlib

        # Behind the standard library: nothing else in that directory may be found first.
        sys.path.append(directory)
        self._nvml: Any = importlib.import_module("pynvml")
        self._nvml.nvmlInit()
        self._handles = self._devices(visible)

    def _devices(self, visible: str | None) -> dict[str, Any]:
        nvml = self._nvml
        if visible is None:
            found = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        else:
            found = []
            for entry in visible.split(","):
                entry = entry.strip()
                # CUDA stops at the first entry that it does not know.
                if entry.isdigit() and int(entry) < nvml.nvmlDeviceGetCount():
                    found.append(nvml.nvmlDeviceGetHandleByIndex(int(entry)))
                elif entry.startswith(("GPU-", "MIG-")):
                    found.append(nvml.nvmlDeviceGetHandleByUUID(entry))
                else:
                    break
        return {f"cuda:{index}": handle for index, handle in enumerate(found)}

    def read(self) -> dict[str, int] | None:
        """Returns the bytes used by device; None where there is no device."""
        read = self._nvml.nvmlDeviceGetMemoryInfo
        return {name: int(read(handle).used) for name, handle in self._handles.items()} or None


class DeviceWatch:
    """Reads the devices on a thread of its own: a driver may take long, and the limit must not wait for it.

    A sample holds the latest reading, which is at most one interval old.
    """

    def __init__(self, directory: str, visible: str | None, interval: float) -> None:
        self.latest: dict[str, int] | None = None
        self.reason: str | None = None
        """Why there are no readings; None while there are, or while nothing is known yet."""
        self._directory = directory
        self._visible = visible
        self._interval = interval

    def start(self) -> None:
        """Starts the thread, which ends with this process."""
        import threading

        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            reader = DeviceReader(self._directory, self._visible)
            while True:
                self.latest = reader.read()
                if self.latest is None:
                    self.reason = "NVML: no device that the load can see"
                    return
                time.sleep(self._interval)
        except Exception as error:
            self.latest = None
            self.reason = f"NVML: {type(error).__name__}: {error}"[:300]
