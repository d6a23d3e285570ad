"""What a planned load ended with: the parameters of the model, where each lies and how it came to be."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hftrace.record.child.plan_hollow import Hollow
from hftrace.record.child.plan_ledger import ANON
from hftrace.record.child.plan_operations import is_wrapped

DISK, CPU, META = "disk", "cpu", "meta"
MOVING = frozenset(
    f"aten::{name}"
    for name in ("_to_copy", "copy_", "clone", "empty_like", "alias", "contiguous", "lift_fresh", "detach")
)
"""Operations that give the values of a weight as they were, in another dtype or place."""
MAX_NAMES = 100_000


def dtype_name(dtype: Any) -> str:
    """Returns a dtype by torch's name, without the module."""
    return str(dtype).removeprefix("torch.")


class Places:
    """Where a model's parameters are, those included that only come when they are used.

    Args:
        model: The finished model.
        mode: What knows of devices that are only spoken of.
    """

    def __init__(self, model: Any, mode: Hollow) -> None:
        self._mode = mode
        given = getattr(model, "hf_device_map", None)
        self.map: dict[str, str] | None = (
            {str(name): _device(place) for name, place in given.items()} if isinstance(given, dict) else None
        )

    def of(self, name: str, tensor: Any) -> str:
        """Returns the place of a tensor: a device, or ``disk``."""
        if tensor.device.type != META:
            known = self._mode.known(tensor)
            return known.kind if known is not None and known.kind != ANON else str(tensor.device)
        return self.mapped(name) or META

    def mapped(self, name: str) -> str | None:
        """Returns where the device map has a name; None where it has no place for it."""
        if self.map is None:
            return None
        parts = name.split(".")
        for length in range(len(parts), -1, -1):
            place = self.map.get(".".join(parts[:length]))
            if place is not None:
                return place
        return None


def _device(place: Any) -> str:
    if isinstance(place, int):
        return f"cuda:{place}"
    return str(place)


def model_facts(model: Any, mode: Hollow, unseen: bool = False) -> dict[str, Any]:
    """Returns what is in a finished model.

    Args:
        model: It.
        mode: What counted its load.
        unseen: Whether weights come from where it does not see them.
    """
    places = Places(model, mode)
    dtypes: Counter[str] = Counter()
    devices: Counter[str] = Counter()
    lazy = count = 0
    ways: dict[str, list[str]] = {}
    way_bytes: Counter[str] = Counter()
    offloaded = _offloaded(model)
    names_of: dict[int, str] = {}
    tied: list[str] = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in names_of:
            tied.append(name)
            continue
        names_of[id(parameter)] = name
        size = parameter.numel() * parameter.element_size()
        place = places.of(name, parameter)
        dtypes[dtype_name(parameter.dtype)] += size
        devices[place] += size
        count += parameter.numel()
        # What is moved to a device for each forward waits with the hooks, on the CPU.
        waiting = offloaded.get(name, parameter) if parameter.device.type == META else parameter
        if place == CPU and mode.mapped(waiting) is not None:
            lazy += size
        way = _way(parameter, place, mode, unseen)
        ways.setdefault(way, []).append(name)
        way_bytes[way] += size
    buffers = sum(each.numel() * each.element_size() for each in model.buffers())
    return {
        "class": type(model).__name__,
        "parameters": _logical(model, count),
        "bytes_by_dtype": dict(dtypes),
        "bytes_by_device": dict(devices),
        "buffer_bytes": buffers,
        "device_map": places.map,
        "tied": tied[:MAX_NAMES],
        "tensors": {
            way: {"count": len(names), "bytes": way_bytes[way], "names": names[:MAX_NAMES]}
            for way, names in ways.items()
        },
        "mapped_bytes": lazy,
    }


def _offloaded(model: Any) -> dict[str, Any]:
    """Returns the tensors that accelerate's hooks keep for modules whose own are on the meta device."""
    import torch

    found: dict[str, Any] = {}
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            weights = getattr(getattr(each, "weights_map", None), "dataset", None)
            kept = getattr(weights, "state_dict", None)
            if isinstance(kept, dict):
                found.update({name: value for name, value in kept.items() if isinstance(value, torch.Tensor)})
    return found


def _logical(model: Any, count: int) -> int:
    """Returns how many parameters a model has: of those that are packed, as many as were packed."""
    if getattr(model, "hf_quantizer", None) is None:
        return count
    number = getattr(model, "num_parameters", None)
    return int(number()) if number is not None else count


def _way(parameter: Any, place: str, mode: Hollow, unseen: bool) -> str:
    """Returns how a parameter came to be where it is."""
    if place == DISK or (parameter.device.type == META and place != META):
        return "offloaded"
    if parameter.device.type == META:
        return META
    if is_wrapped(parameter):
        return "quantised"
    if mode.mapped(parameter) is not None:
        return "mapped"
    known = mode.known(parameter)
    if unseen and (known is None or not known.sources):
        return "unknown"
    if known is None or not known.sources:
        if known is not None and any(not name.startswith("aten::") for name in known.operations):
            return "quantised"
        return "initialised"
    if any(not name.startswith("aten::") for name in known.operations):
        return "quantised"
    if len(known.sources) > 1 or not known.operations <= MOVING:
        return "converted"
    (source,) = known.sources
    return "copied" if source[2] == parameter.dtype else "cast"
