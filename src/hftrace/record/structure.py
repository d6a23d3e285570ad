"""The modules of a finished model by their classes, as ``print(model)`` shows them.

Taken once the clock of the load has stopped. Modules that are alike are
written down once. What they print in brackets is left out: each of them would
have to be asked, and its answer is code of the host's own.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from typing import Any

from hftrace.record.held import Held, children_of
from hftrace.schema import lines

KNOWN = ("torch.", "transformers.")
"""Where a class is from whose own word for its name is asked for."""
PEFT = "peft.tuners."
_nbytes = operator.attrgetter("nbytes")


def structure_line(span: int, model: Any, held: Held) -> lines.Structure:
    """Returns the line that says what modules a model is made of.

    Args:
        span: The load that made the model.
        model: The torch module.
        held: Its tensors.
    """
    root, nodes = kinds_of(model)
    return lines.Structure(span, root, nodes, footprint_bytes(held))


def footprint_bytes(held: Held) -> int | None:
    """Returns what transformers' ``get_memory_footprint`` says of a model; None where it cannot be known."""
    own = dict(zip(held.ids, held.tensors, strict=True)).values()
    try:
        if held.layouts is not None:
            return int(sum(map(_nbytes, own)))
        return int(sum(each.nelement() * each.element_size() for each in own))
    except Exception:  # a lazy parameter, one of a library's own kind
        return None


def kinds_of(model: Any) -> tuple[int, list[Any]]:
    """Returns the position of the model's own kind, and the kinds of modules, children before parents."""
    numbers: dict[Any, int] = {}
    nodes: list[Any] = []
    known: dict[int, int] = {}
    kept: list[Any] = []  # scripted modules are made anew each time: while they live, no other has their id

    def number_of(module: Any, children: tuple[Any, ...]) -> int:
        key = (type(module), children)
        if key not in numbers:
            numbers[key] = len(nodes)
            nodes.append([class_name(module), list(children)])
        return numbers[key]

    leaves: dict[type, int] = {}
    # An iterator for each module on the way down, no recursion: the host may be deep in its own stack.
    above: list[tuple[Any, Iterator[tuple[str, Any]], list[Any]]] = [(model, iter(children_of(model)), [])]
    while above:
        module, siblings, children = above[-1]
        for name, child in siblings:
            own = child.__dict__.get("_modules")
            if own == {}:  # most have none; of a scripted module it is no dict
                number = leaves.get(type(child))
                if number is None:
                    number = leaves[type(child)] = number_of(child, ())
                children += (name, number)
            elif id(child) in known:
                children += (name, known[id(child)])
            else:
                children.append(name)
                above.append((child, iter(children_of(child)), []))
                break
        else:
            above.pop()
            number = known[id(module)] = number_of(module, tuple(children))
            kept.append(module)
            if above:
                above[-1][2].append(number)
    return known[id(model)], nodes


def class_name(module: Any) -> str:
    """Returns what ``print(module)`` calls a module."""
    owner = type(module)
    base = sys.modules["torch"].nn.Module
    own = getattr(owner, "_get_name", base._get_name)
    if own is not base._get_name and str(own.__module__).startswith(KNOWN):
        return str(own(module))
    if owner.__module__.startswith(PEFT) and owner.__repr__ is not base.__repr__:
        # Its layers print the kind of adapter before their own name, which is that of a layer of torch.
        return f"{owner.__module__.split('.')[2]}.{owner.__name__}"
    return owner.__name__
