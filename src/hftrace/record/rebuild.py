"""Does again what a loader did to the tensors of several checkpoint keys, by code of its own.

The operations of 5.x that only move data are few: they stack, join, cut and
transpose. Whatever else an operation may do, its result is not verified.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from hftrace.schema.verification import Check


class UnknownOperationError(Exception):
    """What was done to the keys is not known well enough to be done again."""


def rebuilt(check: Check, read: Callable[[str, str], Any], shape_of: Callable[[str], Sequence[int]]) -> Any:
    """Returns what a tensor should hold, made of the tensors of its keys.

    Args:
        check: The tensor.
        read: Returns the tensor of a path and a key, in the model's dtype.
        shape_of: Returns the shape of a tensor of the model.

    Raises:
        UnknownOperationError: It cannot be made.
    """
    if len(check.operations) != len(check.parameters):
        raise UnknownOperationError
    lists = {
        pattern: [read(path, key) for path, key in sources] for pattern, sources in _by_pattern(check).items()
    }
    values: list[Any] = []
    for number, (name, parameters) in enumerate(zip(check.operations, check.parameters, strict=True)):
        tensors = values if number else list(lists.values())
        operation = _OPERATIONS.get(name)
        if operation is None:
            raise UnknownOperationError
        values = operation(tensors, parameters, [shape_of(sibling) for sibling in check.siblings])
    if len(values) != len(check.siblings):
        raise UnknownOperationError
    result = values[list(check.siblings).index(check.tied_to or check.name)]
    return result[0] if isinstance(result, list) and len(result) == 1 else result


def _by_pattern(check: Check) -> dict[str, list[tuple[str, str]]]:
    """Returns the sources by what they were collected by: in the order of the patterns, each by number."""
    compiled = [re.compile(_expression(pattern)) for pattern in check.patterns]
    found: dict[str, list[tuple[str, str]]] = {pattern: [] for pattern in check.patterns}
    for path, key in check.sources:
        matches = [
            pattern for pattern, regex in zip(check.patterns, compiled, strict=True) if regex.search(key)
        ]
        if len(matches) != 1:
            raise UnknownOperationError
        found[matches[0]].append((path, key))
    for sources in found.values():
        sources.sort(key=lambda source: _by_number(source[1]))
    return {pattern: sources for pattern, sources in found.items() if sources}


def _expression(pattern: str) -> str:
    """Returns a loader's pattern as a regular expression: ``*.`` is any number, and it ends with a name."""
    expression = pattern.replace("*.", r"\d+\.")
    return expression + r"(?!\w)" if expression[-1:].isalnum() else expression


def _by_number(key: str) -> list[tuple[int, int, str]]:
    """Returns a key's parts for sorting: ``experts.10`` comes after ``experts.9``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in key.split(".")]


def _only(value: Any) -> Any:
    """Returns the one tensor of a list, or the tensor."""
    if isinstance(value, list):
        if len(value) != 1:
            raise UnknownOperationError
        return value[0]
    return value


def _stack(values: list[Any], parameters: dict[str, int], shapes: list[Sequence[int]]) -> list[Any]:
    import torch

    if any(not isinstance(value, list) for value in values):
        raise UnknownOperationError
    return [torch.stack(value, dim=parameters.get("dim", 0)) for value in values]


def _join(values: list[Any], parameters: dict[str, int], shapes: list[Sequence[int]]) -> list[Any]:
    import torch

    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    return [torch.cat(parts, dim=parameters.get("dim", 0))]


def _cut_equally(values: list[Any], parameters: dict[str, int], shapes: list[Sequence[int]]) -> list[Any]:
    if len(values) != 1:
        raise UnknownOperationError
    return list(_only(values[0]).chunk(len(shapes), dim=parameters.get("dim", 0)))


def _cut_to_size(values: list[Any], parameters: dict[str, int], shapes: list[Sequence[int]]) -> list[Any]:
    if len(values) != 1:
        raise UnknownOperationError
    dim = parameters.get("dim", 0)
    return list(_only(values[0]).split([shape[dim] for shape in shapes], dim=dim))


def _unstack(values: list[Any], parameters: dict[str, int], shapes: list[Sequence[int]]) -> list[Any]:
    if len(values) != 1:
        raise UnknownOperationError
    return list(_only(values[0]).unbind(parameters.get("dim", 0)))


def _transpose(values: list[Any], parameters: dict[str, int], shapes: list[Sequence[int]]) -> list[Any]:
    if "dim0" not in parameters or "dim1" not in parameters:
        raise UnknownOperationError
    first, second = parameters["dim0"], parameters["dim1"]
    turned = [_only(value).transpose(first, second) for value in values]
    if len(turned) == len(shapes):
        # With check_dims the loader turns only what does not fit as it is.
        for value, shape in zip(turned, shapes, strict=True):
            if list(value.shape) != list(shape) and math.prod(value.shape) == math.prod(shape):
                raise UnknownOperationError
    return turned


def _as_it_is(values: list[Any], parameters: dict[str, int], shapes: list[Sequence[int]]) -> list[Any]:
    return [_only(value) for value in values]


_OPERATIONS: dict[str, Callable[[list[Any], dict[str, int], list[Sequence[int]]], list[Any]]] = {
    "MergeModulelist": _stack,
    "SplitModulelist": _unstack,
    "Concatenate": _join,
    "Chunk": _cut_equally,
    "Split": _cut_to_size,
    "Transpose": _transpose,
    "Force16BytesAlignment": _as_it_is,
    "_IdentityOp": _as_it_is,
}
"""By the names of their classes in ``transformers.core_model_loading``."""
