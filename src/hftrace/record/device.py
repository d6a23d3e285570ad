"""Reads the accelerators' memory from torch's allocator, without ever initialising a device.

Figures are the allocator's own: allocated (tensors), reserved (taken from the
device), and the peak of allocated since the last reset, which is done at each
reading so that spans can have exact peaks. ``torch.cuda`` is asked where it is
in use, else ``torch.accelerator`` (MPS, XPU). Nothing here synchronises.

Tested with torch's CUDA build and its own allocator over a stand-in for the
CUDA runtime (tests/environments/gpu.py), and on one NVIDIA H200. An AMD GPU has
torch's CUDA interface (ROCm) and its names, such as ``cuda:0``; that and others are not tested.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from hftrace.record.interruptions import pass_on
from hftrace.schema import lines

NOT_USED = "the accelerator was not used"
"""Why there are no figures of a device that is there."""
NO_ACCOUNT = "is not a DeviceAllocator"
"""What torch says of the allocator of a backend that registered one without statistics."""
TRIES = 5
"""How often a device is asked until its allocator has stood still meanwhile."""


class DeviceMemory:
    """Reads all devices that this process has used."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self._described = 0

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
        current = accelerator.current_accelerator()
        if current is None or current.type == "cuda":
            # Not initialised: reading would do it, and to ask whether it is available calls cuInit,
            # after which a child made by fork can no longer use CUDA.
            return None
        if not accelerator.is_available() or not _is_in_use(torch):
            return None
        return accelerator, current.type, accelerator.device_count()

    def why_not(self) -> str | None:
        """Returns why there are no figures, in words for the reader; None where there are some."""
        if self.failure is not None:
            return self.failure
        torch = sys.modules.get("torch")
        if torch is None:
            return "torch was not imported"
        try:
            found = self._allocator()
            if found is not None:
                return _why_unaccounted(*found)
            cuda = getattr(torch, "cuda", None)
            # Counted by NVML where there is one: CUDA must not be initialised for this.
            if cuda is not None and cuda.device_count():
                return NOT_USED
            accelerator = getattr(torch, "accelerator", None)
            if accelerator is not None and accelerator.is_available():
                if not hasattr(accelerator, "memory_allocated"):
                    return "this torch does not account for its accelerator's memory: 2.9 and newer do"
                return NOT_USED
            return "torch finds no accelerator"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def describe(self) -> list[dict[str, Any]]:
        """Returns the devices in use: name and size, and what is used of them now, in bytes.

        ``used_bytes`` is the whole device's, of all processes;
        ``outside_allocator_bytes`` is what of it torch's allocator in this
        process has not taken: the context of CUDA (some hundred MB for every
        process), other libraries, other processes. Never initialises a device.
        """
        try:
            found = self._allocator()
        except Exception:
            return []
        if found is None:
            return []
        module, kind, count = found
        return [self._describe(module, kind, index) for index in range(count)]

    def _describe(self, module: Any, kind: str, index: int) -> dict[str, Any]:
        facts: dict[str, Any] = {"device": f"{kind}:{index}"}
        try:
            # torch.accelerator has none, the module of the device itself may.
            describer = module if kind == "cuda" else getattr(sys.modules["torch"], kind, module)
            if hasattr(describer, "get_device_properties"):
                properties = describer.get_device_properties(index)
                facts.update(name=properties.name, memory_bytes=int(properties.total_memory))
                if hasattr(properties, "is_integrated"):
                    facts["integrated"] = bool(properties.is_integrated)
            # torch.cuda and torch.accelerator have their own names for the same question.
            ask = getattr(module, "mem_get_info", None) or getattr(module, "get_memory_info", None)
            if ask is not None and _has_context(kind, index):
                used, total, reserved = _used(module, ask, index)
                facts.update(memory_bytes=int(total), used_bytes=used)
                if _figures(module, index) is not None:
                    facts["outside_allocator_bytes"] = max(0, used - reserved)
        except Exception as error:
            if NO_ACCOUNT not in str(error):  # which why_not says in plain words
                facts["problem"] = f"{type(error).__name__}: {error}"
        return facts

    def pinned_bytes(self) -> dict[str, int] | None:
        """Returns host memory that CUDA has pinned, now and at most, in bytes; None where torch does not say.

        From ``torch.cuda.host_memory_stats``, which came with torch 2.7.
        """
        cuda = getattr(sys.modules.get("torch"), "cuda", None)
        try:
            if cuda is None or not cuda.is_initialized() or not hasattr(cuda, "host_memory_stats"):
                return None
            stats = cuda.host_memory_stats()
            return {
                "current": int(stats["allocated_bytes.current"]),
                "peak": int(stats["allocated_bytes.peak"]),
            }
        except Exception:
            return None

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
                figures = _figures(module, index)
                if figures is None:
                    continue
                readings[f"{kind}:{index}"] = figures
                if reset:
                    module.reset_peak_memory_stats(index)
            return readings or None
        except Exception as error:
            pass_on(error)
            # A half-imported torch, a backend without accounting: no figures, and the reason is kept.
            self.failure = f"{type(error).__name__}: {error}"
            return None

    def news(self) -> list[lines.Line]:
        """Returns what the journal is to have of the devices now, while a load is open."""
        reading = self.read(reset=False)
        if not reading:
            return []
        found: list[lines.Line] = []
        # When they are first in use, and when something is on one: said again when all is over, which a
        # load that is killed does not see.
        stage = 1 + any(reserved for _, reserved, _ in reading.values())
        if stage > self._described:
            self._described = stage
            found.append(lines.Facts("environment", {"devices": self.describe()}))
        readings = {
            name: lines.AllocatorReading(allocated, reserved)
            for name, (allocated, reserved, _) in reading.items()
        }
        return [*found, lines.Device(time.monotonic_ns(), readings)]


def _why_unaccounted(module: Any, kind: str, count: int) -> str | None:
    """Returns why an accelerator that is in use has no figures; None where one of its devices has."""
    if any(_figures(module, index) is not None for index in range(count)):
        return None
    return f"torch keeps no account of the memory of {kind}"


def _is_in_use(torch: Any) -> bool:
    """Returns whether an accelerator's allocator was asked for memory yet; True where torch does not say.

    Before, torch answers what it answers for one that keeps no account.
    """
    ask = getattr(getattr(torch, "_C", None), "_accelerator_isAllocatorInitialized", None)
    try:
        return ask is None or bool(ask())
    except RuntimeError:  # an allocator of a form that torch.accelerator cannot ask
        return True


def _figures(module: Any, index: int) -> list[int] | None:
    """Returns what is allocated and reserved, and the peak of allocated, in bytes.

    ``torch.cuda`` has a function for each, which flattens and sorts all of the
    allocator's statistics every time: 360 µs for three figures (measured), and
    10 µs for the nested ones that they are made of. ``torch.accelerator`` answers 0
    for a device whose allocator keeps no account: that is None here.
    """
    nested = getattr(module, "memory_stats_as_nested_dict", None)
    statistics = nested(index) if nested is not None else {}
    try:
        allocated, reserved = statistics["allocated_bytes"]["all"], statistics["reserved_bytes"]["all"]
        return [int(allocated["current"]), int(reserved["current"]), int(allocated["peak"])]
    except KeyError:
        pass
    account = getattr(module, "memory_stats", None)
    try:
        if account is not None and not account(index):
            return None
    except RuntimeError as error:
        if NO_ACCOUNT in str(error):
            return None
        raise
    return [
        int(module.memory_allocated(index)),
        int(module.memory_reserved(index)),
        int(module.max_memory_allocated(index)),
    ]


def _used(module: Any, ask: Callable[[int], tuple[int, int]], index: int) -> tuple[int, int, int]:
    """Returns what is used of a device, its size, and what the allocator has reserved of it, in bytes.

    The three belong together: another thread may be in the middle of a load.
    """
    for _ in range(TRIES):
        before = int(module.memory_reserved(index))
        free, total = ask(index)
        if before == (reserved := int(module.memory_reserved(index))):
            break
    return int(total) - int(free), int(total), reserved


def _has_context(kind: str, index: int) -> bool:
    """Returns whether this process uses the device already; True where torch does not say.

    CUDA makes a context, some hundred MB of the device's memory, on each
    device whose free memory is asked for.
    """
    ask = getattr(getattr(sys.modules["torch"], "_C", None), "_cuda_hasPrimaryContext", None)
    return True if kind != "cuda" or ask is None else bool(ask(index))
