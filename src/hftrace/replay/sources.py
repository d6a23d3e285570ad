"""Where the stored data of each tensor lies: one file, or several where several keys became one tensor."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hftrace.replay.keys import Stored


class Source(NamedTuple):
    """What the checkpoint says of the keys of one tensor; None where that is not one answer for all."""

    file: str | None = None
    files: dict[str, int] | None = None
    """Bytes by file, where the keys are in several."""
    offset: int | None = None
    dtype: str | None = None
    bytes: int | None = None


NO_SOURCE = Source()


def sources_of(
    keys: Sequence[Sequence[str]], shapes: Sequence[Sequence[int]], stored: Mapping[str, Stored]
) -> list[Source]:
    """Returns what is stored of each tensor.

    Args:
        keys: The checkpoint keys of each tensor.
        shapes: The shape of each tensor.
        stored: The checkpoint. Keys that became several tensors are shared out among
            them by their numbers of elements, so that no byte counts twice.
    """
    elements = {
        mine: count
        for mine, count in _shared_elements(keys, shapes).items()
        # What does not add up was not cut: packed codes, or statistics beside them.
        if count == sum(math.prod(stored[key].tensor.shape) for key in mine)
    }
    result = []
    for mine, shape in zip(keys, shapes, strict=True):
        whole = elements.get(tuple(mine), 0) if elements else 0
        found = [stored[key] for key in mine]
        result.append(_source(found, math.prod(shape), whole) if whole else _source(found, 1, 1))
    return result


def _shared_elements(
    keys: Sequence[Sequence[str]], shapes: Sequence[Sequence[int]]
) -> dict[tuple[str, ...], int]:
    """Returns, of keys that became several tensors, how many elements these have together."""
    firsts = [mine[0] for mine in keys if mine]
    if len(set(firsts)) == len(firsts):
        return {}
    uses = Counter(tuple(mine) for mine in keys if mine)
    elements: dict[tuple[str, ...], int] = {}
    for mine, shape in zip(map(tuple, keys), shapes, strict=True):
        if uses[mine] > 1:
            elements[mine] = elements.get(mine, 0) + math.prod(shape)
    return elements


def _source(found: Sequence[Stored], part: int, whole: int) -> Source:
    """Returns what is stored of one tensor, which has ``part`` of ``whole`` of its keys' elements."""
    if not found:
        return NO_SOURCE
    if len(found) == 1:
        (only,) = found
        size = only.tensor.bytes * part // whole
        return Source(only.file, None, only.tensor.offset, only.tensor.dtype, size)
    sizes: dict[str, int] = {}
    for each in found:
        if each.file is not None:
            sizes[each.file] = sizes.get(each.file, 0) + each.tensor.bytes
    dtypes = {each.tensor.dtype for each in found}
    return Source(
        file=next(iter(sizes)) if len(sizes) == 1 else None,
        files={file: size * part // whole for file, size in sizes.items()} if len(sizes) > 1 else None,
        dtype=dtypes.pop() if len(dtypes) == 1 else None,
        bytes=sum(each.tensor.bytes for each in found) * part // whole,
    )
