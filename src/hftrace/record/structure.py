"""The modules of a finished model by their classes, as ``print(model)`` shows them.

Taken once the clock of the load has stopped. Modules that are alike are
written down once. What they print in brackets is left out: each of them would
have to be asked, and its answer is code of the host's own.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from hftrace.record.held import Held
from hftrace.schema import lines

KNOWN = ("torch.", "transformers.")
"""Where a class is from whose own word for its name is asked for."""
PEFT = "peft.tuners."


def structure_line(span: int, held: Held) -> lines.Structure:
    """Returns the line that says what modules a model is made of.

    Args:
        span: The load that made the model.
        held: What it holds.
    """
    root, nodes = kinds_of(held)
    return lines.Structure(span, root, nodes, footprint_bytes(held))


def footprint_bytes(held: Held) -> int | None:
    """Returns what transformers' ``get_memory_footprint`` says of a model; None where it cannot be known."""
    try:
        if held.layouts is not None:
            numbers, layouts = held.layouts
            sizes = [math.prod(shape) * dtype.itemsize for shape, dtype, _ in layouts]
            if len(set(held.ids)) < len(held.ids):  # one has two names
                numbers = list(dict(zip(held.ids, numbers, strict=True)).values())
            return int(sum(map(sizes.__getitem__, numbers)))
        own = dict(zip(held.ids, held.tensors, strict=True)).values()
        return int(sum(tensor.nelement() * tensor.element_size() for tensor in own))
    except Exception:  # a lazy parameter, one of a library's own kind
        return None


def kinds_of(held: Held) -> tuple[int, list[Any]]:
    """Returns the position of the model's own kind, and the kinds of modules, children before parents.

    Most modules are in a layer like many others, and are then looked at by functions of C alone.

    Args:
        held: What its walk has come by.
    """
    numbers: dict[Any, int] = {}
    nodes: list[Any] = []
    leaves: dict[type, int] = {}
    alike: dict[Any, int] = {}

    def number_of(module: Any, children: tuple[Any, ...]) -> int:
        key = (type(module), children)
        if key not in numbers:
            numbers[key] = len(nodes)
            nodes.append([class_name(module), list(children)])
        return numbers[key]

    # A module comes before those below it: from the last to the first, each finds these numbered.
    inside: dict[int, list[Any]] = {}
    number = None
    walked = (held.parents, held.children, held.own_names, held.depths)
    for module, table, own_name, depth in zip(*map(reversed, walked), strict=True):
        inner = inside.pop(depth + 1, ())
        key = (type(module), tuple(inner), *table, *map(type, table.values()))
        number = alike.get(key)
        if number is None:
            known = dict(zip(inner[::2], inner[1::2], strict=True))
            children: list[Any] = []
            for name, child in table.items():
                if child is None:
                    continue
                its = known.get(name)
                if its is None:
                    its = leaves.get(type(child))
                if its is None:
                    its = leaves[type(child)] = number_of(child, ())
                children += (name, its)
            number = alike[key] = number_of(module, tuple(children))
        inside.setdefault(depth, []).extend((own_name, number))
    root = number_of(held.root, ()) if number is None else number
    held.classes = {kind for kind, _ in numbers}
    return root, nodes


def class_name(module: Any) -> str:
    """Returns what ``print(module)`` calls a module."""
    owner = type(module)
    base = sys.modules["torch"].nn.Module
    own = getattr(owner, "_get_name", base._get_name)
    if own is not base._get_name and str(own.__module__).startswith(KNOWN):
        return str(own(module))
    if owner.__module__.startswith(PEFT) and owner.__repr__ is not base.__repr__:
        # Its layers print the kind of adapter before their own name, which is that of a layer of torch:
        # "lora." or "lora.dora.", as it stands in the function.
        constants = getattr(getattr(owner.__repr__, "__code__", None), "co_consts", ())
        kind = f"{owner.__module__.split('.')[2]}."
        printed = (each for each in constants if isinstance(each, str) and each.startswith(kind))
        return f"{next((each for each in printed if each.endswith('.')), kind)}{owner.__name__}"
    return owner.__name__
