"""Traces that are read when their turn comes and forgotten after it, and their paths as they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from hftrace.schema.trace import Trace


class Opened(Sequence["Trace"]):
    """Traces by their paths; each is read anew whenever it is asked for, and none is kept.

    Args:
        paths: Where they lie.
        read: Reads one.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[str], Trace]) -> None:
        self._paths = paths
        self._read = read

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Trace: ...

    @overload
    def __getitem__(self, index: slice) -> list[Trace]: ...

    def __getitem__(self, index: int | slice) -> Trace | list[Trace]:
        if isinstance(index, slice):
            return [self._read(path) for path in self._paths[index]]
        return self._read(self._paths[index])

    def __iter__(self) -> Iterator[Trace]:
        return map(self._read, self._paths)


class Shown(Sequence[str]):
    """Paths as they are shown; what stands for a name in one may be known only when its trace was read.

    Args:
        paths: As they were named.
        show: Returns one as it is shown.
    """

    def __init__(self, paths: Sequence[str], show: Callable[[str], str]) -> None:
        self._paths = paths
        self._show = show

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._show(path) for path in self._paths[index]]
        return self._show(self._paths[index])
