"""The journal: the append-only event log that a load leaves behind while it runs.

One JSON array per line; the first item says what the line is. A process
writes with one ``write`` per batch to a file opened for appending, so a
process that is killed leaves whole lines, at worst one cut line at the end,
and all that was written before.

This module is the contract between the two sides: :mod:`hftrace.record`
writes these lines inside the loading process, :mod:`hftrace.replay.trace`
reads them anywhere, later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftrace.errors import TraceError

SCHEMA = "hftrace.journal"
VERSION = 2
"""2: the lines of :mod:`hftrace.schema.events` are packed; those of version 1 stay readable."""

JOURNAL_PREFIX = "journal-"
SAMPLES_PREFIX = "samples-"
STACKS_PREFIX = "stacks-"
SUPERVISOR_FILE = "supervisor.jsonl"
"""What the supervisor knows, should it die too: see :mod:`hftrace.launch.run_directory`."""
SUFFIX = ".jsonl"

# What a line is. The letters keep the hot lines short; the fields behind each follow it here.
HEADER = "header"
"""facts: {schema, version, pid, rank, clock_base_ns, start_time, ...}."""
HOOK = "hook"
"""hook id, target, function, source, phase, lead, trail: what a load's own code before such a call, and
after its last call, is for, or ""."""
BEGIN = "begin"
"""span id, parent, phase, name, hook id, thread, time_ns, edge, attributes.

An edge is [anonymous, file, shared, watermark, {device: [allocated, reserved, peak]}, read from storage],
in bytes; journals of 0.1 development versions end before the last item."""
END = "end"
"""span id, time_ns, edge, status, attributes to add."""
READS = "reads"
"""thread, [slice id, start_ns, end_ns, ...]: a lazy tensor was read, and cast if asked."""
CONVERTS = "converts"
"""thread, [target, source | [sources, operations], start_ns, end_ns, ...]: 5.x converts one target."""
PLACES = "places"
"""thread, [name, start_ns, end_ns, ...]: a tensor was put into the model."""
MODULES = "modules"
"""thread, [prefix, start_ns, end_ns, ...]: a module copied its tensors from a state dict (to 4.50)."""
MOVES = "moves"
"""thread, [name, device, start_ns, end_ns, ...]: accelerate's set_module_tensor_to_device."""
INITIALIZES = "initializes"
"""thread, [start_ns, end_ns, ...]: a module's weights were initialised."""
COLLECTIONS = "collections"
"""thread, [objects collected, 1 | 0, start_ns, end_ns, ...]: a full collection of Python's garbage collector
inside a load; 1 where the interpreter began it by itself, 0 where someone called ``gc.collect``."""
SLICES = "slices"
"""span, [slice id, checkpoint key, ...]: which lazy tensor is which."""
KEYS = "keys"
"""span, source, [key, dtype, shape, bytes, ...]: tensors of a pickle or of a state dict."""
RENAMES = "renames"
"""span, [checkpoint key, model key, ...]: the renaming that the loader computed."""
FILE = "file"
"""span, {name, path, result, size, where, client}: one file asked for, of a repository or directory;
client: what became of it in the Hub client, and not one more question."""
DOWNLOAD = "download"
"""span, {name, where, bytes, ok}: (a part of) a file came over the network."""
CHECKPOINT = "checkpoint"
"""span, [path, ...], [share resident, ...]: the weight files, in the loader's order."""
MODEL = "model"
"""span, facts of the finished model."""
LAYOUTS = "layouts"
"""span, [[dtype, device, shape, bytes], ...]: the distinct layouts that TENSORS rows point to."""
TENSORS = "tensors"
"""span, [name, kind, layout, identity, ...]: parameters and buffers of the finished model."""
RESIDENT = "resident"
"""span, [path, ...], [share, ...]: the page cache when the load returned."""
THREAD = "thread"
"""thread, name."""
ERROR = "error"
"""hook target, message: an error of our own, shielded from the host."""
FACTS = "facts"
"""block, {...}: facts for the blocks environment, request and outcome."""
DEVICE = "device"
"""time_ns, {device: [allocated, reserved]}: a reading between edges."""
LOST = "lost"
"""number of events that could not be written."""
SAMPLE = "sample"
"""time_ns, anonymous, file, shared, swap, storage read, cpu_ns (bytes, nanoseconds); since the first
version also cgroup bytes, memory stall in ns, available bytes, {device: bytes used}."""
LIMIT = "limit"
"""time_ns, anonymous bytes, limit in bytes: the sampler is about to kill the process."""
STOP = "stop"
"""time_ns: the recorder was stopped in order."""


def journal_path(directory: str | os.PathLike[str], pid: int, rank: int) -> Path:
    """Returns where a process keeps its journal."""
    return Path(directory) / f"{JOURNAL_PREFIX}{rank}-{pid}{SUFFIX}"


def samples_path(directory: str | os.PathLike[str], pid: int) -> Path:
    """Returns where the sampler of a process keeps its samples."""
    return Path(directory) / f"{SAMPLES_PREFIX}{pid}{SUFFIX}"


def stacks_path(directory: str | os.PathLike[str], pid: int) -> Path:
    """Returns where a loading process writes the stacks of its threads."""
    return Path(directory) / f"{STACKS_PREFIX}{pid}.txt"


def lines(path: str | os.PathLike[str]) -> Iterator[list[Any]]:
    """Yields the lines of a journal; a line that is cut or damaged is left out.

    A process that was killed may have left its last line unfinished, which
    is no damage: everything before it counts.

    Raises:
        TraceError: The file cannot be read.
    """
    try:
        handle = open(path, "rb")  # noqa: SIM115 (closed by the with below; the open has its own errors)
    except OSError as error:
        raise TraceError(f"cannot read the journal {os.fspath(path)}: {error.strerror or error}") from None
    with handle:
        for raw in handle:
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, list) and line and isinstance(line[0], str):
                yield line
