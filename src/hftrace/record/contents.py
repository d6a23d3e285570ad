"""What a tensor holds whose data lies in other tensors: quantised weights, parts of distributed ones.

A quantised weight of torchao or optimum-quanto is a tensor that says
``bfloat16`` and holds integers and scales; one of bitsandbytes is packed codes
with statistics as attributes; a ``DTensor`` says the shape of the whole and
holds this rank's part. All of them are described here by what is really there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from hftrace.record.interruptions import pass_on
from hftrace.schema.lines import Layout

MAX_DEPTH = 8
"""A wrapper may hold a wrapper: a DTensor the part of a quantised tensor, and that packed codes."""
BESIDE = ("quant_state", "SCB")
"""Attributes of bitsandbytes' parameters that belong to the weight: statistics of 4 bits, scales of 8."""
STATISTICS = ("absmax", "code", "offset", "state2")
"""What a ``QuantState`` of bitsandbytes holds; ``state2`` is the one of the statistics themselves."""


@functools.cache
def plain_classes() -> frozenset[type]:
    """Returns the classes of tensors that hold their own data and nothing else."""
    import torch

    return frozenset({torch.Tensor, torch.nn.Parameter})


def all_plain(tensors: Iterable[Any]) -> bool:
    """Returns whether every tensor holds its own data and nothing else; only C runs for each of them."""
    return plain_classes().issuperset(set(map(type, tensors)))


def is_plain(tensor: Any) -> bool:
    """Returns whether a tensor holds its own data and nothing else."""
    return type(tensor) in plain_classes()


def plain_part(tensor: Any) -> Any:
    """Returns the first plain tensor in a wrapper (of torchao, a distributed one), else the tensor itself."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    while flatten is not None:
        tensor = getattr(tensor, flatten()[0][0])
        flatten = getattr(tensor, "__tensor_flatten__", None)
    return tensor


def layout_of(tensor: Any, offloaded: bool) -> Layout:
    """Describes a tensor by what it holds.

    Args:
        tensor: Of any class.
        offloaded: Whether its weights stay behind a hook.
    """
    part = part_of_rank(tensor)
    shape, whole = list(part.shape), list(tensor.shape)
    device = str(part.device)
    try:
        held = list(_held(part, MAX_DEPTH))
        sizes = [each.numel() * each.element_size() for each in held]
        dtype = _name(held[sizes.index(max(sizes))].dtype)
    except Exception as error:  # a library's own class, which may do anything: what it holds is not known
        pass_on(error)
        return Layout(None, device, shape, None, offloaded, None, type(part).__name__)
    return Layout(
        dtype,
        device,
        shape,
        sum(sizes),
        offloaded,
        whole if whole != shape else None,
        type(part).__name__ if len(held) != 1 or held[0] is not part else "",
    )


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def part_of_rank(tensor: Any) -> Any:
    """Returns the part of a distributed tensor that this rank holds; any other tensor as it is."""
    if hasattr(type(tensor), "to_local") and hasattr(tensor, "_local_tensor"):
        return part_of_rank(tensor._local_tensor)
    return tensor


def _held(tensor: Any, depth: int) -> Iterator[Any]:
    """Yields the tensors that data lies in.

    Raises:
        RecursionError: A wrapper holds itself.
    """
    if depth < 0:
        raise RecursionError(f"a {type(tensor).__name__} holds tensors that hold tensors without end")
    flatten = getattr(type(tensor), "__tensor_flatten__", None)
    if flatten is not None:
        for name in flatten(tensor)[0]:
            yield from _held(getattr(tensor, name), depth - 1)
        return
    yield tensor
    for name in BESIDE if type(tensor) not in plain_classes() else ():
        yield from _beside(getattr(tensor, name, None), depth)


def _beside(value: Any, depth: int) -> Iterator[Any]:
    """Yields the tensors of a parameter's statistics, those of the statistics' own included."""
    if value is None or depth < 0:
        return
    if hasattr(value, "element_size"):
        yield value
        return
    for name in STATISTICS:
        yield from _beside(value.__dict__.get(name) if hasattr(value, "__dict__") else None, depth - 1)
