"""What ``hftrace floor`` asks of an interpreter: imports, copies and casts in memory, copies to devices.

Prints one JSON object. The copies to devices could not be tested where this was written: there was no
accelerator; they are asked for with ``--devices`` alone.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

LIBRARIES = ("torch", "transformers", "transformers.modeling_utils")
"""In the order in which a load imports them: each without what the ones before have brought."""


def _imports() -> dict[str, int]:
    """Returns how long each library took, in ns; one that is not there is left out."""
    found = {}
    for name in LIBRARIES:
        started = time.monotonic_ns()
        try:
            importlib.import_module(name)
        except Exception:
            continue
        found[name] = time.monotonic_ns() - started
    return found


def _rate(work: Callable[[], Any], size: int, seconds: float) -> int:
    """Returns the most bytes per second that a piece of work reaches; the first time it is warmed up."""
    work()
    best, until = 0, time.monotonic() + seconds
    for _ in range(10):
        started = time.perf_counter_ns()
        work()
        best = max(best, size * 1_000_000_000 // max(1, time.perf_counter_ns() - started))
        if time.monotonic() >= until:
            break
    return best


def _in_memory(torch: Any, size: int, seconds: float) -> dict[str, int]:
    """Returns the rates of a copy into memory that is there, and of a cast, both by bytes of the source."""
    source = torch.zeros(size // 2, dtype=torch.bfloat16)
    copy, wide = torch.empty_like(source), torch.empty(size // 2, dtype=torch.float32)
    copy.fill_(0)
    wide.fill_(0)
    return {
        "copy_bytes_per_s": _rate(lambda: copy.copy_(source), size, seconds),
        "cast_bytes_per_s": _rate(lambda: wide.copy_(source), size, seconds),
    }


def _to_devices(torch: Any, size: int, seconds: float) -> dict[str, dict[str, int]]:
    """Returns the rates of copies to each CUDA device, from pinned and from pageable memory."""
    found: dict[str, dict[str, int]] = {"pinned_bytes_per_s": {}, "pageable_bytes_per_s": {}}
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        name = f"cuda:{number}"
        target = torch.empty(size, dtype=torch.uint8, device=name)
        for kind, pinned in (("pinned_bytes_per_s", True), ("pageable_bytes_per_s", False)):
            source = torch.zeros(size, dtype=torch.uint8, pin_memory=pinned)

            def work(source: Any = source, target: Any = target, name: str = name) -> None:
                target.copy_(source, non_blocking=True)
                torch.cuda.synchronize(name)

            found[kind][name] = _rate(work, size, seconds)
    return found


def main(asked: str) -> int:
    """Measures, and prints one line of JSON whatever the imports print elsewhere.

    Args:
        asked: JSON with ``seconds``, ``bytes`` and ``devices``.
    """
    out = os.dup(1)
    os.dup2(2, 1)
    wanted = json.loads(asked)
    size, seconds = int(wanted["bytes"]) // 4096 * 4096 or 4096, float(wanted["seconds"])
    found: dict[str, Any] = {"import_ns": _imports()}
    if "torch" in found["import_ns"]:
        torch = importlib.import_module("torch")
        found |= _in_memory(torch, size, seconds)
        if wanted["devices"]:
            found |= _to_devices(torch, size, seconds)
    os.write(out, json.dumps(found).encode() + b"\n")
    return 0
