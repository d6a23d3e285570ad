"""The last write to each tensor that somebody made who is watched."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from hftrace.record.held import version_of
from hftrace.schema.lines import WRITTEN_SINCE


class Written(NamedTuple):
    """A tensor that was written, by where it lies: a module that moves may get others in their places."""

    module: Any
    name: str
    time_ns: int
    by: str


class WriteLog:
    """The last write to each tensor: when, and by whom.

    Tensors are known by identity and held by weak references alone.
    """

    def __init__(self) -> None:
        self._writes: dict[int, tuple[weakref.ref[Any], int, str, int | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._writes)

    def note(self, tensor: Any, by: str, time_ns: int) -> None:
        """Notes that a tensor was written.

        Args:
            tensor: The parameter or buffer itself, and no view of it.
            by: Who wrote, in one word.
            time_ns: When, on the recorder's clock.
        """
        self._writes[id(tensor)] = (weakref.ref(tensor), time_ns, by, version_of(tensor))

    def clear(self) -> None:
        """Forgets all of it, and leaves no weak reference on a tensor.

        ``torch.utils.swap_tensors``, which ``Module.to`` uses for quantised ones, refuses tensors
        that have one.
        """
        self._writes.clear()

    def among(self, tensors: Collection[Any]) -> Iterator[tuple[int, int, str]]:
        """Yields identity, time and writer of those tensors that were written.

        Of one that somebody else has written after that, as torch counts, the writer is not known.
        """
        writes = self._writes
        if writes.keys().isdisjoint(map(id, tensors)):  # most of a model is read and not written
            return
        for tensor in tensors:
            found = writes.get(id(tensor))
            if found is not None and found[0]() is tensor:
                yield id(tensor), found[1], found[2] if version_of(tensor) == found[3] else WRITTEN_SINCE

    def below(self, modules: Iterable[tuple[str, Any]]) -> list[Written]:
        """Returns what was written of some modules' own tensors; holds none of them."""
        return [
            Written(module, name, time_ns, by)
            for _, module in modules
            for name, tensor in (*module._parameters.items(), *module._buffers.items())
            for _, time_ns, by in self.among((tensor,))
        ]

    def moved(self, written: Iterable[Written]) -> None:
        """Notes the same of the tensors that lie in these places now."""
        for module, name, time_ns, by in written:
            tensor = module._parameters.get(name, module._buffers.get(name))
            if tensor is not None:
                self.note(tensor, by, time_ns)
