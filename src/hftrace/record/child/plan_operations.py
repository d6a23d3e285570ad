"""What a planned load knows of storages and weight files, and helpers that look into operations of torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

Source = tuple[str, int, Any]


MAX_SOURCES = 4096
"""Of one tensor: the experts of a layer are fused from so many at most."""


class UnknownError(Exception):
    """The load does what cannot be planned."""


class Mapping:
    """A weight file in memory: what of it was read."""

    def __init__(self, path: str, start: int, size: int) -> None:
        self.path, self.start, self.end = path, start, start + size
        self.touched: set[tuple[int, int]] = set()
        self.peeked = 0
        """Bytes that this process has mapped in truth, for single values, and that nothing was told of."""
        self.counted = 0
        """Bytes that are in the ledger for it."""

    def read(self, offset: int, size: int) -> int:
        """Returns how many bytes more are in memory once a part of it was read."""
        if (offset, size) in self.touched:
            return 0
        self.touched.add((offset, size))
        here = min(self.peeked, size)
        self.peeked -= here
        self.counted += size - here
        return size - here


class Storage:
    """What is known of one storage.

    Attributes:
        kind: Of memory: anonymous, or a device's name.
        size: Its bytes.
        written: How many of them are there, as far as something wrote them.
        sources: Where its values come from: (file, offset, dtype there).
        operations: Which operations made them.
        counted: Whether it is in the ledger: what this process takes in truth is not.
        blank: Whether its values are not there.
    """

    __slots__ = ("blank", "counted", "kind", "operations", "size", "sources", "written")

    def __init__(self, kind: str, size: int, *, counted: bool = True, blank: bool = True) -> None:
        self.kind, self.size, self.counted, self.blank = kind, size, counted, blank
        self.written = 0
        self.sources: frozenset[Source] = frozenset()
        self.operations: frozenset[str] = frozenset()


def operation(func: Any, args: Any) -> str:
    """Returns what an operation does to values, by the name of one that does the same where it does nothing.

    ``tie_weights`` of 5.x pads the bias of every head that is tied, mostly by nothing: that is a copy.
    """
    name: str = func._schema.name
    if name == "aten::constant_pad_nd" and len(args) > 1 and not any(args[1]):
        return "aten::clone"
    return name


def is_saving() -> bool:
    """Returns whether a module is writing its state down: a value that is only kept decides nothing."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "_save_to_state_dict":
            return True
        frame = frame.f_back
    return False


def is_wrapped(tensor: Any) -> bool:
    """Returns whether a tensor is of a kind that holds others, and has no storage of its own."""
    return has_own(type(tensor))


def has_own(kind: Any) -> bool:
    """Returns whether a class of tensors has operations of its own."""
    import torch

    return kind.__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl


def joined(one: frozenset[Any], other: frozenset[Any]) -> frozenset[Any]:
    """Returns two sets as one, unless it would grow without end."""
    return one if len(one) >= MAX_SOURCES else one | other


def elements(shape: Any) -> int:
    """Returns how many elements a shape has."""
    total = 1
    for each in shape:
        total *= int(each)
    return total


def tensors_in(value: Any) -> Iterator[Any]:
    """Yields the tensors in arguments, or in what is returned."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def replaced(value: Any, make: Callable[[Any], Any]) -> Any:
    """Returns a result with other tensors in it."""
    import torch

    if isinstance(value, torch.Tensor):
        return make(value)
    if isinstance(value, (list, tuple)):
        return type(value)([replaced(each, make) for each in value])
    return value


def as_meta(value: Any) -> Any:
    """Returns arguments with meta tensors in place of all tensors."""
    import torch

    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, (list, tuple)):
        return [as_meta(each) for each in value]
    if isinstance(value, dict):
        return {name: as_meta(each) for name, each in value.items()}
    return value


def written_by(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """Returns the tensors that an operation writes into."""
    found: list[Any] = []
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[number] if number < len(args) else kwargs.get(argument.name)
        found.extend(tensors_in(value))
    return found


def is_view(func: Any) -> bool:
    """Returns whether what an operation gives lies where its input does."""
    returns = func._schema.returns
    return bool(returns) and all(each.alias_info is not None for each in returns)
