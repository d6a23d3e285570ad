"""Reads the accelerators' memory from torch's allocator, without ever initialising a device.

Figures are the allocator's own: allocated (tensors), reserved (taken from the
device), and the peak of allocated since the last reset, which is done at each
reading so that spans can have exact peaks. ``torch.cuda`` is asked where it is
in use, else ``torch.accelerator`` (MPS, XPU). Nothing here synchronises.

Tested with a stand-in allocator; on a real GPU not yet.
"""

from __future__ import annotations

import sys
from typing import Any


class DeviceMemory:
    """Reads all devices that this process has used."""

    def __init__(self) -> None:
        self.failure: str | None = None

    def _allocator(self) -> tuple[Any, str, int] | None:
        """Returns the module that accounts, the device type, and how many devices there are."""
        torch = sys.modules.get("torch")
        if torch is None:
            return None
        cuda = getattr(torch, "cuda", None)
        if cuda is not None and getattr(cuda, "is_initialized", bool)():
            return cuda, "cuda", cuda.device_count()
        accelerator = getattr(torch, "accelerator", None)
        # memory_allocated came to torch.accelerator in 2.9; before, only CUDA can be read.
        if accelerator is None or not hasattr(accelerator, "memory_allocated"):
            return None
        if not accelerator.is_available():
            return None
        kind = accelerator.current_accelerator().type
        if kind == "cuda":
            return None  # there, but not initialised: reading would initialise it
        return accelerator, kind, accelerator.device_count()

    def read(self, *, reset: bool) -> dict[str, list[int]] | None:
        """Returns ``{device: [allocated, reserved, peak allocated]}`` in bytes, or None without a device.

        Args:
            reset: Whether to start a new peak.
        """
        if "torch" not in sys.modules:
            return None
        try:
            found = self._allocator()
            if found is None:
                return None
            module, kind, count = found
            readings: dict[str, list[int]] = {}
            for index in range(count):
                readings[f"{kind}:{index}"] = [
                    int(module.memory_allocated(index)),
                    int(module.memory_reserved(index)),
                    int(module.max_memory_allocated(index)),
                ]
                if reset:
                    module.reset_peak_memory_stats(index)
            return readings or None
        except Exception as error:
            # A half-imported torch, a backend without accounting: no figures, and the reason is kept.
            self.failure = f"{type(error).__name__}: {error}"
            return None
