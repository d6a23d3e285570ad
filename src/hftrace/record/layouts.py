"""What tells a tensor from others without keeping it: its shape and dtype, and where its memory lies."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from hftrace.record.contents import all_plain, plain_part
from hftrace.record.held import Held


class Layout(NamedTuple):
    """What a tensor is, whatever it holds."""

    shape: Any
    """None for a tensor without one."""
    dtype: Any
    on_meta: bool


def layouts_of(held: Held) -> tuple[list[int], list[Layout]]:
    """Returns a number for each tensor, and what each number stands for."""
    if held.layouts is not None:
        numbers, layouts = held.layouts
        return numbers, [Layout(shape, dtype, device.type == "meta") for shape, dtype, device in layouts]
    return list(range(len(held.tensors))), list(map(_layout, held.tensors))


def _layout(tensor: Any) -> Layout:
    try:
        shape = plain_part(tensor).shape
    except Exception:  # a lazy tensor, one of a library's own kind
        shape = None
    return Layout(shape, tensor.dtype, tensor.is_meta)


def places_of(tensors: list[Any]) -> tuple[list[int | None], list[int | None]]:
    """Returns weak references to the tensors' storages, and where in these they begin."""
    if all_plain(tensors):
        torch = sys.modules["torch"]
        try:
            storages = list(map(torch.UntypedStorage._weak_ref, map(torch.Tensor.untyped_storage, tensors)))
        except Exception:  # one of them is sparse
            pass
        else:
            return storages, list(map(torch.Tensor.storage_offset, tensors))
    places = list(map(place_of, tensors))
    return [storage for storage, _ in places], [offset for _, offset in places]


def place_of(tensor: Any) -> tuple[int | None, int | None]:
    """Returns a weak reference to a tensor's storage, which is to be freed, and where in it that begins."""
    try:
        offset = plain_part(tensor).storage_offset()
        return plain_part(tensor).untyped_storage()._weak_ref(), offset
    except Exception:  # a lazy or sparse tensor, one of a library's own kind
        return None, None
