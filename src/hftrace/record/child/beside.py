"""What torch itself records beside a load, where that is asked for: a profile, its CUDA allocator's history.

Both cost time that the trace then has in it. Whatever they recorded is written when the load has ended,
well or not; of one that is killed nothing is left.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftrace.record.recorder import Recorder, clock, shielded

CLOCK_MARK = "hftrace clock"
"""What the profiler's events are called that tell how its clock and ours stand to one another."""
MARKS = 5
"""How many of them there are at each end: the first ones take longer, and say less."""
MOST_MEMORY_EVENTS = 1_000_000
"""Allocations and releases that the allocator keeps, some 100 bytes and a stack each; the last ones stay."""


class BesideError(Exception):
    """What was asked for cannot be recorded here: wrong usage, and not a failed load."""


@contextlib.contextmanager
def beside(recorder: Recorder, request: dict[str, Any]) -> Iterator[None]:
    """Records what was asked for while the block runs.

    Args:
        recorder: Gets the errors of what is written at the end.
        request: ``torch_profile`` and ``memory_snapshot``, each the file to write, or None.

    Raises:
        BesideError: It cannot be recorded here.
    """
    with contextlib.ExitStack() as stack:
        if request.get("memory_snapshot"):
            stack.enter_context(_memory_history(recorder, str(request["memory_snapshot"])))
        if request.get("torch_profile"):
            stack.enter_context(_profiler(recorder, Path(request["torch_profile"])))
        yield


@contextlib.contextmanager
def _memory_history(recorder: Recorder, path: str) -> Iterator[None]:
    """Has torch's CUDA allocator keep its history, and writes that as its viewer reads it.

    It was tried with stand-ins for torch's two functions, and on no GPU yet.
    """
    import torch

    if not torch.cuda.is_available():
        raise BesideError(
            "--memory-snapshot is the history of torch's CUDA allocator, and torch finds no CUDA device "
            "here: leave it out"
        )
    memory: Any = torch.cuda.memory
    # Stacks of C++ take seconds to be told apart, and say little of a load.
    memory._record_memory_history(max_entries=MOST_MEMORY_EVENTS, stacks="python")
    try:
        yield
    finally:
        shielded(recorder, "memory snapshot", memory._dump_snapshot, path)
        shielded(recorder, "memory snapshot", lambda: memory._record_memory_history(enabled=None))


@contextlib.contextmanager
def _profiler(recorder: Recorder, path: Path) -> Iterator[None]:
    try:
        profiler = _started()
    except Exception as error:
        raise BesideError(f"torch's profiler cannot start here: {error}") from None
    at_start = _marks()
    try:
        yield
    finally:
        facts = {"name": CLOCK_MARK, "at_start": at_start, "at_end": _marks()}
        shielded(recorder, "torch profile", profiler.stop)
        shielded(recorder, "torch profile", profiler.export_chrome_trace, str(path))
        clock_file = path.with_name(f"{path.name}.clock")
        shielded(recorder, "torch profile", clock_file.write_text, json.dumps(facts))


def _started() -> Any:
    from torch.profiler import ProfilerActivity, profile, supported_activities

    known = {ProfilerActivity.CPU, ProfilerActivity.CUDA} & set(supported_activities())
    options: dict[str, Any] = {"activities": known}
    try:
        from torch._C._profiler import _ExperimentalConfig

        # Loaders read in threads of their own. Before 2.6 torch cannot look at these.
        options["experimental_config"] = _ExperimentalConfig(profile_all_threads=True)
    except (ImportError, TypeError):
        pass
    profiler = profile(**options)
    profiler.start()
    return profiler


def _marks() -> list[list[int]]:
    """Makes marks; returns of each when our clock stood before it, in it, and after it, in ns."""
    from torch.profiler import record_function

    found = []
    for _ in range(MARKS):
        before = clock()
        with record_function(f"{CLOCK_MARK} {before}"):
            inside = clock()
        found.append([before, inside, clock()])
    return found
