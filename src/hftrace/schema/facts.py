"""Leaves out the facts of a trace that are not what they have to be, and says which.

Nobody who reads a fact has to ask then whether it is a number: it is unknown where it was none, and the
trace says so in ``lost``. What each has to be is said in :mod:`hftrace.schema.fact_shapes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from hftrace.errors import TraceError
from hftrace.schema.checks import MAX_DEPTH, MAX_INTEGER, ROUNDING, check_depth
from hftrace.schema.columns import shown
from hftrace.schema.fact_shapes import ATTRIBUTES, BLOCKS
from hftrace.schema.shapes import AMOUNT, ANY, FLAG, INTEGER, NUMBER, SHARE, TEXT, Shape

MAX_NAMED = 20
"""Facts that are named, of those that were left out."""

_GONE: Final = object()


class Cleaner:
    """Leaves out the facts that are not what they have to be, and knows which."""

    def __init__(self) -> None:
        self.count = 0
        self.names: list[str] = []
        """The first of them."""

    def block(self, name: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Returns a block of facts; the same one where all is well."""
        return self._object(facts, BLOCKS[name], name)

    def object(self, facts: dict[str, Any], shapes: dict[str, Shape]) -> dict[str, Any]:
        """Returns facts of another kind; the same ones where all is well."""
        return self._object(facts, shapes, "facts")

    def attributes(self, values: list[Any]) -> list[Any]:
        """Returns attributes of spans; the same list where all is well."""
        cleaned = [
            self._object(each, ATTRIBUTES, "attributes") if each and type(each) is dict else each
            for each in values
        ]
        return cleaned if self.count else values

    def _left_out(self, where: str) -> Any:
        self.count += 1
        if len(self.names) < MAX_NAMED and where not in self.names:
            self.names.append(where)
        return _GONE

    def _cleaned(self, value: Any, shape: Shape, where: str) -> Any:
        if value is None:
            return value
        kind = type(value)
        if isinstance(shape, str):
            if shape is ANY:
                return self._shallow(value, where) if kind is dict or kind is list else value
            return value if _CHECKS[shape](value) else self._left_out(where)
        if isinstance(shape, tuple):
            fitting = (each for each in shape if isinstance(each, dict) == (kind is dict))
            return self._cleaned(value, next(fitting, shape[0]), where)
        if isinstance(shape, list):
            return self._list(value, shape[0], where) if kind is list else self._left_out(where)
        return self._object(value, shape, where) if kind is dict else self._left_out(where)

    def _shallow(self, value: Any, where: str) -> Any:
        try:
            check_depth(value, where, MAX_DEPTH)
        except TraceError:
            return self._left_out(where)
        return value

    def _object(self, value: dict[str, Any], shapes: dict[str, Shape], where: str) -> dict[str, Any]:
        others = shapes.get("*", ANY)
        changed: dict[str, Any] = {}
        for name, each in value.items():
            if each is None:
                continue
            shape = shapes.get(name, others)
            check = _CHECKS.get(shape) if type(shape) is str else None
            if check is not None and check(each):
                continue  # as most are
            cleaned = self._cleaned(
                each, shape, f"{where}.{name}" if name in shapes else f"{where}.{shown(name)}"
            )
            if cleaned is not each:
                changed[name] = cleaned
        if not changed:
            return value
        return {name: each for name, each in {**value, **changed}.items() if each is not _GONE}

    def _list(self, value: list[Any], shape: Shape, where: str) -> list[Any]:
        cleaned = [self._cleaned(each, shape, f"{where}[]") for each in value]
        if all(left is right for left, right in zip(cleaned, value, strict=True)):
            return value
        return [each for each in cleaned if each is not _GONE]


def _is_integer(value: Any) -> bool:
    return type(value) is int and -MAX_INTEGER < value < MAX_INTEGER


def _is_number(value: Any) -> bool:
    return (
        type(value) is int or (type(value) is float and math.isfinite(value))
    ) and 0 <= value < MAX_INTEGER


_CHECKS: dict[str, Callable[[Any], bool]] = {
    TEXT: lambda value: type(value) is str,
    FLAG: lambda value: type(value) is bool,
    INTEGER: _is_integer,
    AMOUNT: lambda value: _is_integer(value) and value >= 0,
    NUMBER: _is_number,
    SHARE: lambda value: _is_number(value) and value <= 1 + ROUNDING,
}


def note_lost(header: dict[str, Any], lost: dict[str, Any]) -> dict[str, Any]:
    """Returns a header that says what was lost besides what it says already.

    Args:
        header: That of a trace.
        lost: Counts, which are added up, and lists of names, which are joined.
    """
    known = header.get("lost")
    said: dict[str, Any] = dict(known) if isinstance(known, dict) else {}
    for name, value in lost.items():
        before = said.get(name)
        if not value:
            continue
        if isinstance(value, list):
            names = [each for each in before if isinstance(each, str)] if isinstance(before, list) else []
            said[name] = list(dict.fromkeys([*names, *value]))[:MAX_NAMED]
        else:
            said[name] = value + (before if type(before) is int and 0 <= before < MAX_INTEGER else 0)
    return {**header, "lost": said}
