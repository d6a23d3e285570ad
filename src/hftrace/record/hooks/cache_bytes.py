"""What the cache of a model that generates takes: the bytes of its tensors by device."""

from __future__ import annotations

from typing import Any

MAX_OBJECTS = 50_000
"""Objects that are looked at: a legacy cache has four tensors for each layer."""
MAX_DEPTH = 6


def cache_facts(cache: Any) -> dict[str, Any] | None:
    """Returns class and bytes of a cache; None where there is none.

    Bytes are None where no tensor is found in it, or where there is more in it
    than is looked at. A tensor that is in it twice counts once.
    """
    if cache is None:
        return None
    kind = type(cache)
    # Before 4.43 most models hand a plain tuple on.
    facts: dict[str, Any] = {"class": kind.__name__}
    sizes = _bytes(cache)
    if sizes:
        facts["bytes"] = sizes
    return facts


def _bytes(cache: Any) -> dict[str, int] | None:
    sizes: dict[str, int] = {}
    seen: dict[int, Any] = {}  # the objects themselves: while they live no other has their id
    pending = [(cache, 0)]
    while pending:
        value, depth = pending.pop()
        if value is None or isinstance(value, (str, bytes, int, float, bool)) or id(value) in seen:
            continue
        if len(seen) >= MAX_OBJECTS:
            return None
        seen[id(value)] = value
        if hasattr(value, "element_size") and hasattr(value, "numel"):
            if hasattr(value, "__tensor_flatten__"):
                # A quantised one says how large it would be if it were not.
                pending += [(getattr(value, name), depth) for name in value.__tensor_flatten__()[0]]
            elif not _is_parameter(value):
                device = str(value.device)
                sizes[device] = sizes.get(device, 0) + value.numel() * value.element_size()
        elif depth < MAX_DEPTH:
            pending += [(each, depth + 1) for each in _parts(value, depth)]
    return sizes


def _is_parameter(value: Any) -> bool:
    """Returns whether a tensor is a model's: a cache may refer to the model that it is of."""
    return any(base.__name__ == "Parameter" for base in type(value).__mro__)


def _parts(value: Any, depth: int) -> list[Any]:
    """Returns what a container holds, or what an object of a cache's own kind has in its attributes."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if depth and not _is_of_a_cache(value):
        return []
    own = getattr(value, "__dict__", None)
    return list(own.values()) if isinstance(own, dict) else []


def _is_of_a_cache(value: Any) -> bool:
    """Returns whether an object is a part of a cache: one of its layers, or a cache itself."""
    names = [base.__name__ for base in type(value).__mro__]
    return any("Cache" in name or name.endswith("DynamicLayer") for name in names) and not any(
        "Config" in name or name == "PreTrainedModel" for name in names
    )
