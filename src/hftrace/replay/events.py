"""What happened once per tensor or module, as objects: the one place that takes the journal's batches apart.

Times are raw readings of the loading process's clock, in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, NamedTuple, TypeAlias

from hftrace.schema import journal, lines


class Read(NamedTuple):
    """A lazy tensor was read, and cast if asked."""

    slice_id: int
    start: int
    end: int
    thread: int


class Convert(NamedTuple):
    """5.x made one tensor of the model from checkpoint keys."""

    target: str
    sources: list[str]
    operations: list[str]
    start: int
    end: int
    thread: int
    patterns: Sequence[str] = ()
    """What the sources were collected by, in the loader's order; journals of 0.2 do not have it."""
    parameters: Sequence[dict[str, int]] = ()
    """Those of the operations."""


class Placement(NamedTuple):
    """A tensor was put into the model."""

    name: str
    start: int
    end: int
    thread: int


class ModuleCopy(NamedTuple):
    """A module copied its own tensors from a state dict (to 4.50)."""

    prefix: str
    """The module's name and a dot; empty for the whole model."""
    start: int
    end: int
    thread: int


class Move(NamedTuple):
    """accelerate put a tensor on a device."""

    name: str
    device: str
    start: int
    end: int
    thread: int


class Initialization(NamedTuple):
    """The weights of a module were initialised."""

    start: int
    end: int
    thread: int


class Unpacking(NamedTuple):
    """A tensor of a GGUF file became tensors of the state dict that the model is loaded from."""

    key: str
    names: list[str]
    """Of these tensors; none where it was not asked for. Several may be a part of one."""
    operations: list[str]
    """What was done to its values besides dequantising them."""
    start: int
    end: int
    thread: int


class Collection(NamedTuple):
    """Python's garbage collector walked all objects."""

    collected: int
    automatic: bool
    """Whether the interpreter began it by itself, and not a call of ``gc.collect``."""
    start: int
    end: int
    thread: int


Event: TypeAlias = Read | Convert | Placement | ModuleCopy | Move | Initialization | Collection | Unpacking


def decode(line: lines.Events) -> list[Event]:
    """Returns the events of a batch, in the order in which their thread noted them."""
    make, width = _MAKERS[line.kind]
    # An event that is not whole is left out.
    return list(map(make, *(line.items[at::width] for at in range(width)), repeat(line.thread)))


def _convert(target: str, source: Any, start: int, end: int, thread: int) -> Convert:
    if isinstance(source, list):
        sources, operations, *rest = source
        return Convert(target, list(sources), list(operations), start, end, thread, *map(list, rest[:2]))
    return Convert(target, [source or target], [], start, end, thread)


def _unpacking(key: str, what: Any, start: int, end: int, thread: int) -> Unpacking:
    names, operations = what if isinstance(what, list) else ([what], [])
    return Unpacking(key, list(names), list(operations), start, end, thread)


def _collection(collected: int, automatic: int, start: int, end: int, thread: int) -> Collection:
    return Collection(collected, bool(automatic), start, end, thread)


_MAKERS: dict[str, tuple[Callable[..., Event], int]] = {
    journal.READS: (Read, 3),
    journal.CONVERTS: (_convert, 4),
    journal.PLACES: (Placement, 3),
    journal.MODULES: (ModuleCopy, 3),
    journal.MOVES: (Move, 4),
    journal.INITIALIZES: (Initialization, 2),
    journal.COLLECTIONS: (_collection, 4),
    journal.UNPACKS: (_unpacking, 4),
}
"""By kind of line: what makes an event, and how many items of a batch it takes."""
