"""What else went on while a process was recorded: libraries were imported, weight files mapped.

A trace without a load, or whose loads take little of its time, is of more use
where it says what was seen instead.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hftrace.schema.vocabulary import WEIGHT_SUFFIXES
from hftrace.system.memory import HostMemory

MAX_NAMES = 100
OURS = "hftrace"
SUFFIXES = (*WEIGHT_SUFFIXES, ".pth", ".ckpt", ".onnx")
"""Other runtimes map these."""


class Surroundings:
    """Looks at the process now, and again when the recording ends.

    Args:
        memory: Reads the counters of this process.
    """

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory
        self._modules = _packages()
        self._storage_read = memory.current().storage_read
        self._mapped = mapped_weights()

    def changes(self) -> dict[str, Any]:
        """Returns what came since: ``imported`` packages, ``mapped`` weight files, ``storage_read_bytes``."""
        read, before = self._memory.current().storage_read, self._storage_read
        return {
            "imported": sorted(_packages() - self._modules)[:MAX_NAMES],
            "mapped": sorted(mapped_weights() - self._mapped)[:MAX_NAMES],
            "storage_read_bytes": read - before if read is not None and before is not None else None,
        }


def _packages() -> set[str]:
    """Returns the packages that are imported now, without Python's own."""
    return {
        name
        for name in list(sys.modules)
        if "." not in name
        and not name.startswith("_")
        and name not in sys.stdlib_module_names
        and name != OURS
    }


def mapped_weights() -> set[str]:
    """Returns the weight files of which a part is mapped into this process now."""
    try:
        text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    paths = (line.split(maxsplit=5)[5] for line in text.splitlines() if line.count("/"))
    return {path for path in paths if path.endswith(SUFFIXES)}
