"""A block of facts of a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Facts(Mapping[str, Any]):
    """A read-only block of named facts, readable as ``facts.name`` and ``facts["name"]``.

    A fact that the file does not have is an ``AttributeError`` as an attribute
    and a ``KeyError`` as a key; use :meth:`get` where it may be missing.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"this trace has no fact {name!r}") from None

    def __repr__(self) -> str:
        return f"Facts({self._values!r})"
