"""Measures all floors of a model's files: reads here, what needs torch in an interpreter of its own."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hftrace import units
from hftrace.errors import HftraceError, UsageError
from hftrace.launch.child import ask_interpreter
from hftrace.launch.floors.reads import BLOCK_BYTES, drop, pieces_of, read_rate
from hftrace.schema.vocabulary import WEIGHT_SUFFIXES
from hftrace.system.mounts import file_system_of

READERS = 4
"""Threads that transformers 5.x reads with."""
CHILD = "hftrace.record.child.floor"
CHILD_SECONDS = 120
LEAST_BYTES = READERS * BLOCK_BYTES
"""One block for each reader: what is less is no rate of several."""


def weight_files(model: str) -> list[Path]:
    """Returns the weight files of a model: of a directory, one file, or a model of the Hub that is cached.

    Raises:
        UsageError: There are none.
    """
    place = Path(model).expanduser()
    suffixes = tuple(dict.fromkeys((".safetensors", ".gguf", *WEIGHT_SUFFIXES)))
    if place.is_file():
        if place.suffix not in suffixes:
            raise UsageError(f"{model} is no weight file: name one that ends in {', '.join(suffixes)}")
        return [place]
    if not place.is_dir():
        place = _cached(model)
    for suffix in suffixes:
        found = sorted(path for path in place.iterdir() if path.suffix == suffix and path.stat().st_size)
        if found:
            return found
    raise UsageError(
        f"{model} holds no weight files: name a directory with .safetensors, .gguf or .bin files"
    )


def _cached(model: str) -> Path:
    """Returns the directory of a model of the Hub in its cache; nothing is fetched.

    Raises:
        UsageError: It is not there.
    """
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface"
    )
    cache = Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))
    folder = cache / ("models--" + model.replace("/", "--"))
    try:
        commit = (folder / "refs" / "main").read_text().strip()
        if (folder / "snapshots" / commit).is_dir():
            return folder / "snapshots" / commit
    except OSError:
        pass
    raise UsageError(
        f"there is no directory {model}, and no model of that name in {cache}: download it first"
    )


def measure(
    files: list[Path],
    *,
    python: str,
    seconds: float,
    most_bytes: int,
    devices: bool,
    told: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Returns what this machine can do with files; a figure that cannot be had is None.

    Args:
        files: Weight files; what is read of them is dropped from the page cache first.
        python: The interpreter whose libraries are imported.
        seconds: How long each measurement may take.
        most_bytes: How much each of them may read.
        devices: Whether to copy to accelerators too.
        told: Is told what is measured now.

    Raises:
        HftraceError: A file cannot be read, or the interpreter gives no answer.
    """
    try:
        pieces = pieces_of(files, most_bytes)
        there = sum(piece.bytes for piece in pieces)
        if there < LEAST_BYTES:
            raise UsageError(
                f"{units.byte_count(there)} of weights are too few for a floor: "
                f"name a model of {units.byte_count(LEAST_BYTES)} or more"
            )
        cold: dict[int, int | None] = {}
        for readers in (1, READERS):
            told(f"reading from storage, {readers} at a time")
            cold[readers] = read_rate(pieces, readers, seconds) if drop(pieces) else None
        told("reading from the page cache")
        read_rate(pieces, 1, seconds)  # what the time has cut off above
        warm = {readers: read_rate(pieces, readers, seconds) for readers in (1, READERS)}
    except OSError as error:
        raise HftraceError(
            f"{error.filename or files[0]} cannot be read: {error.strerror or error}"
        ) from None
    told("imports, copies and casts")
    inside = _in_child(python, seconds, min(most_bytes, 1 << 28), devices)
    return {
        "measured_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "filesystem": file_system_of(str(files[0])),
        "bytes": sum(piece.bytes for piece in pieces),
        "readers": READERS,
        "cold_bytes_per_s": cold[1],
        "cold_readers_bytes_per_s": cold[READERS],
        "warm_bytes_per_s": warm[1],
        "warm_readers_bytes_per_s": warm[READERS],
        **inside,
    }


def _in_child(python: str, seconds: float, most_bytes: int, devices: bool) -> Mapping[str, Any]:
    asked = json.dumps({"seconds": seconds, "bytes": most_bytes, "devices": devices})
    return ask_interpreter(
        python,
        *("load", asked, CHILD),
        timeout_seconds=CHILD_SECONDS + 10 * seconds,
        late="did not answer: an import hangs",
    )
