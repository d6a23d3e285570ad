"""The journal: the append-only event log that a load leaves behind while it runs.

One JSON array per line; the first item says what the line is. A process
writes with one ``write`` per batch to a file opened for appending, so a
process that is killed leaves whole lines, at worst one cut line at the end,
and all that was written before.

:mod:`hftrace.record` writes it inside the loading process,
:mod:`hftrace.replay` reads it anywhere, later; the contract between the two
sides is :mod:`hftrace.schema.lines`, and :mod:`hftrace.schema.codec` writes and reads it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hftrace.errors import TraceError
from hftrace.schema.strict_json import DECODER


class Damage:
    """How many lines of a journal were left out, in whole or in part."""

    def __init__(self) -> None:
        self.lines = 0


SCHEMA = "hftrace.journal"
VERSION = 2
"""2: the lines of :mod:`hftrace.schema.events` are packed; those of version 1 stay readable."""

JOURNAL_PREFIX = "journal-"
SAMPLES_PREFIX = "samples-"
STACKS_PREFIX = "stacks-"
STOPPED_PREFIX = "stopped-"
"""A file by the name of a journal that could not be written to its end: a JSON object that says why."""
COPY_PREFIX = "header-"
"""The beginning of a weight file, as it was loaded: what its header says is read from there."""
SUPERVISOR_FILE = "supervisor.jsonl"
"""What the supervisor knows, should it die too: see :mod:`hftrace.launch.run_directory`."""
SUFFIX = ".jsonl"
MAX_LINE_BYTES = 64 << 20
"""What is longer is no line of ours, and no memory is taken for it: the keys of 100,000 tensors take 6 MB."""
_scan = DECODER.raw_decode
"""Half of the time of :func:`json.loads`, which guesses at the encoding of every line."""

# What a line is; hftrace.schema.lines says what stands behind each. Short words keep the hot lines short.
HEADER = "header"
HOOK = "hook"
BEGIN = "begin"
END = "end"
SLICES = "slices"
KEYS = "keys"
RENAMES = "renames"
FILE = "file"
DOWNLOAD = "download"
ANSWER = "answer"
CHECKPOINT = "checkpoint"
MODEL = "model"
STRUCTURE = "structure"
LAYOUTS = "layouts"
TENSORS = "tensors"
WRITES = "writes"
VERIFIED = "verified"
MEASURED = "measured"
RESIDENT = "resident"
THREAD = "thread"
ERROR = "error"
FACTS = "facts"
DEVICE = "device"
LOST = "lost"
SAMPLE = "sample"
LIMIT = "limit"
STOP = "stop"
ASSIGNED = "assigned"
ORIGINS = "origins"
WATCHED = "watched"
KEPT = "kept"
IMPORTS = "imports"
CLOCKS = "clocks"

# What happens once per tensor or module: thread, then a batch of events as it stands here.
READS = "reads"
"""[slice id, start_ns, end_ns, ...]: a lazy tensor was read, and cast if asked."""
CONVERTS = "converts"
"""[target, source | [sources, operations, patterns, parameters], start_ns, end_ns, ...]: 5.x converts
one target; the source is 0 where it has the same name."""
PLACES = "places"
"""[name, start_ns, end_ns, ...]: a tensor was put into the model."""
MODULES = "modules"
"""[prefix, start_ns, end_ns, ...]: a module copied its tensors from a state dict (to 4.50)."""
MOVES = "moves"
"""[name, device, start_ns, end_ns, ...]: accelerate's set_module_tensor_to_device."""
INITIALIZES = "initializes"
"""[start_ns, end_ns, ...]: a module's weights were initialised."""
COLLECTIONS = "collections"
"""[objects collected, 1 | 0, start_ns, end_ns, ...]: a full collection of Python's garbage collector
inside a load; 1 where the interpreter began it by itself, 0 where someone called ``gc.collect``."""
UNPACKS = "unpacks"
"""[key, name | [names, operations], start_ns, end_ns, ...]: a tensor of a GGUF file became tensors of a
state dict; the operations are what was done to its values besides dequantising them."""
EVENT_KINDS = frozenset({READS, CONVERTS, PLACES, MODULES, MOVES, INITIALIZES, COLLECTIONS, UNPACKS})


def journal_path(directory: str | os.PathLike[str], pid: int, rank: int) -> Path:
    """Returns where a process keeps its journal."""
    return Path(directory) / f"{JOURNAL_PREFIX}{rank}-{pid}{SUFFIX}"


def samples_path(directory: str | os.PathLike[str], pid: int) -> Path:
    """Returns where the sampler of a process keeps its samples."""
    return Path(directory) / f"{SAMPLES_PREFIX}{pid}{SUFFIX}"


def stacks_path(directory: str | os.PathLike[str], pid: int) -> Path:
    """Returns where a loading process writes the stacks of its threads."""
    return Path(directory) / f"{STACKS_PREFIX}{pid}.txt"


def copy_name(pid: int, number: int) -> str:
    """Returns the name of a process's copy of the beginning of a file."""
    return f"{COPY_PREFIX}{pid}-{number}"


def lines(
    path: str | os.PathLike[str], damage: Damage | None = None, *, within: int | None = None
) -> Iterator[list[Any]]:
    """Yields the lines of a journal; a line that is cut, damaged, or too long to be one, is left out.

    A process that was killed may have left its last line unfinished, which
    is no damage: everything before it counts.

    Args:
        path: The journal.
        damage: Counts the lines that are damaged.
        within: Look no further than about so many bytes; None for the whole file.

    Raises:
        TraceError: The file cannot be read.
    """
    try:
        handle = open(path, "rb")  # noqa: SIM115 (closed by the with below; the open has its own errors)
    except OSError as error:
        raise TraceError(f"cannot read the journal {os.fspath(path)}: {error.strerror or error}") from None
    read = 0
    with handle:
        while (within is None or read < within) and (raw := handle.readline(MAX_LINE_BYTES)):
            read += len(raw)
            line = _parsed(raw)
            if line is not None:
                yield line
            elif damage is not None and raw.endswith(b"\n") and raw != b"\n":
                damage.lines += 1


def _parsed(raw: bytes) -> list[Any] | None:
    """Returns a line; None where it is cut or damaged."""
    try:
        text = raw.decode("utf-8").strip()
        line, end = _scan(text)
    except (ValueError, RecursionError):
        return None
    whole = end == len(text) and isinstance(line, list) and line and isinstance(line[0], str)
    return line if whole else None
