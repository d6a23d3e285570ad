"""Runs ``from_pretrained`` under :class:`Hollow`, and says what it came to."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hftrace.record.child.plan_cache import cache_bytes
from hftrace.record.child.plan_facts import model_facts
from hftrace.record.child.plan_hollow import Hollow
from hftrace.record.child.plan_ledger import PHASE_OUTSIDE, Ledger
from hftrace.record.child.plan_operations import UnknownError
from hftrace.record.child.plan_stand_ins import named_devices, standing_in
from hftrace.record.hooks.lookup import find
from hftrace.record.hooks.tables import POINTS


def dry_load(
    owner: Any,
    model_id: str,
    keywords: dict[str, Any],
    options: dict[str, Any],
    folder: Path,
    real: Callable[[], tuple[int, int]],
) -> dict[str, Any]:
    """Returns what a load would take and end with.

    Args:
        owner: The class to load with.
        model_id: A directory or a Hub id.
        keywords: Of ``from_pretrained``.
        options: ``gpus``: the bytes of each device that is only spoken of.
        folder: Where what is offloaded would be written.
        real: Reads the anonymous and file-backed memory of this process.

    Raises:
        UnknownError: What the load does cannot be planned.
    """
    gpus = list(options.get("gpus") or [])
    phases = Phases()
    phases()  # what it learns takes memory, which is no part of the load
    ledger = Ledger(real, phases)
    mode = Hollow(ledger, devices=bool(gpus))
    if "offload_folder" in keywords:
        keywords = {**keywords, "offload_folder": str(folder / "offload")}
    if gpus and "device_map" in keywords:
        keywords = {**keywords, "device_map": named_devices(keywords["device_map"])}
    # A GGUF file is unpacked by numpy, which is not kept from it: its load is done, and measured.
    unseen = bool(keywords.get("gguf_file"))
    start = real()
    ledger.settle()
    with standing_in(mode, gpus), mode:
        model = owner.from_pretrained(model_id, **keywords)
        ledger.settle()
    if mode.looked:
        raise UnknownError(
            f"the load looks at the values of weights ({mode.looked[0]}), and a plan reads none"
        )
    if not isinstance(model, sys.modules["torch"].nn.Module):
        raise UnknownError(f"{type(model).__name__} is no model: only those are planned")
    end = real()
    cache, problem = None, None
    if options.get("context"):
        cache, problem = cache_bytes(model, int(options["context"]), int(options.get("batch") or 1))
    return {
        "start": {"anon_bytes": start[0], "file_bytes": start[1]},
        **ledger.facts(),
        **model_facts(model, mode, unseen),
        "reads_weights": unseen,
        "cache_bytes": cache,
        "cache_problem": problem,
        "end": {
            "anon_bytes": end[0] + ledger.now["anon"],
            "anon_at_most_bytes": end[0] + ledger.held_at_most(),
            "file_bytes": end[1] + ledger.now["file"],
        },
        "offload_written_bytes": ledger.now["disk"],
    }


class Phases:
    """Names the phase that the calling code is in, by the functions that hook points mean."""

    def __init__(self) -> None:
        self._codes: dict[Any, str] = {}
        self._modules = 0

    def __call__(self) -> str:
        """Returns the phase of the innermost function that has one."""
        if self._modules != len(sys.modules):
            self._modules = len(sys.modules)
            self._learn()
        frame: Any = sys._getframe(1)
        while frame is not None:
            phase = self._codes.get(frame.f_code)
            if phase is not None:
                return phase
            frame = frame.f_back
        return PHASE_OUTSIDE

    def _learn(self) -> None:
        for point in POINTS:
            if point.module not in sys.modules:
                continue
            found = find(point)
            if found.function is not None:
                function = inspect.unwrap(found.function)
                self._codes[function.__code__] = point.phase
