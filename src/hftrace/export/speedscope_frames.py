"""Frames of speedscope's format, and the stacks that the bytes of a trace's tensors lie in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from hftrace.analysis.time.load_names import describe_load, load_groups, load_names
from hftrace.analysis.time.spans import span_index
from hftrace.export.chrome_events import words
from hftrace.schema.trace import Trace

_SOURCE = re.compile(r"(.+):([0-9]{1,9})")
Stack = tuple[list[int], int]
"""Numbers of frames, the outermost first, and how many bytes lie there."""


class Frame(NamedTuple):
    """What a profile calls something, and where its code is."""

    name: str
    file: str | None = None
    line: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the frame as the format has it."""
        found: dict[str, Any] = {"name": words(self.name) or "?"}
        if self.file is not None:
            found["file"] = words(self.file)
        if self.line is not None:
            found["line"] = self.line
        return found


def frame_at(name: str, source: str | None) -> Frame:
    """Returns the frame of a function, whose source is ``FILE:LINE``."""
    place = _SOURCE.fullmatch(source or "")
    return Frame(name, source) if place is None else Frame(name, place[1], int(place[2]))


class Frames(dict[Frame, int]):
    """The number of each frame that a file has; one that is new gets the next."""

    def __missing__(self, frame: Frame) -> int:
        self[frame] = number = len(self)
        return number


def stored_bytes(trace: Trace, rank: int, frames: Frames) -> Iterator[Stack]:
    """Yields the bytes that tensors have in the files: by load, file, module and name."""
    column = trace.tensors.column
    below = _Below(trace, frames)
    columns = ("rank", "load", "name", "keys", "file", "files", "stored_bytes")
    for row_rank, load, name, keys, file, files, size in zip(
        *(column(each) for each in columns), strict=True
    ):
        if row_rank != rank or not size:
            continue
        shares = dict(files) if files else {}
        rest = size - sum(shares.values())
        if rest > 0:
            shares[file or "in several files"] = shares.get(file, 0) + rest
        for each, share in shares.items():
            if share:
                yield below(load, each, name or next(iter(keys), "?")), share


def held_bytes(trace: Trace, rank: int, frames: Frames) -> Iterator[Stack]:
    """Yields the bytes that tensors hold in the model: by load, device, module and name.

    One that is tied to another is that other one, and not there again.
    """
    column = trace.tensors.column
    below = _Below(trace, frames)
    columns = ("rank", "load", "name", "device", "kind", "tied_to", "same_as", "bytes")
    for row_rank, load, name, device, kind, tied, same, size in zip(
        *(column(each) for each in columns), strict=True
    ):
        if row_rank == rank and size and kind != "unused" and tied is None and same is None:
            yield below(load, device or "no device", name or "?"), size


class _Below:
    """Gives the frames that a tensor lies in.

    Args:
        trace: The trace.
        frames: The frames of the file.
    """

    def __init__(self, trace: Trace, frames: Frames) -> None:
        self._frames = frames
        self._loads: dict[int | None, list[int]] = {}
        ids = span_index(trace).ids
        groups = load_groups(trace)
        if len(groups) > 1:
            for rows, name in zip(groups, load_names(trace), strict=True):
                frame = frames[Frame(f"load {name.number}: {describe_load(name)}")]
                self._loads |= {ids[row]: [frame] for row in rows}
        self._modules: dict[str, list[int]] = {"": []}

    def __call__(self, load: int | None, first: str, tensor: str) -> list[int]:
        module, _, name = tensor.rpartition(".")
        return [
            *self._loads.get(load, ()),
            self._frames[Frame(first)],
            *self._module(module),
            self._frames[Frame(name or tensor)],
        ]

    def _module(self, path: str) -> list[int]:
        """Returns a frame for each module of a path; a number goes with the name before it."""
        found = self._modules.get(path)
        if found is None:
            parts: list[str] = []
            for part in path.split("."):
                if part.isdecimal() and parts and not parts[-1].endswith("]"):
                    parts[-1] += f"[{part}]"
                else:
                    parts.append(part)
            found = self._modules[path] = [self._frames[Frame(part)] for part in parts]
        return found
