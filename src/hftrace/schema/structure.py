"""The modules of a model as a trace holds them: each kind of module once, with what it is made of.

A model of a thousand equal layers has a thousand times the same few kinds of
modules, so what is written down is a list of kinds, from the innermost to the
model itself. It says all that a tree of every single module would say.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MAX_MODULES = 1 << 20
"""A structure that stands for more modules than this is none of ours: a few kinds can stand for any."""


class Kind(NamedTuple):
    """A kind of module."""

    class_name: str
    """As ``print(model)`` has it."""
    children: Sequence[tuple[str, int]]
    """The name and the kind of each child."""


class Structure(NamedTuple):
    """The modules of one model."""

    kinds: Sequence[Kind]
    root: int
    """The kind of the model itself."""
    footprint_bytes: int | None = None
    """What ``get_memory_footprint()`` of the model says."""


def is_structure(nodes: Sequence[Any]) -> bool:
    """Returns whether these are kinds of modules, of which none is below itself."""
    for position, node in enumerate(nodes):
        if type(node) is not list or len(node) < 2:
            return False
        name, children = node[:2]
        if type(name) is not str or type(children) is not list or len(children) % 2:
            return False
        if not all(type(each) is str for each in children[0::2]):
            return False
        if not all(type(each) is int and 0 <= each < position for each in children[1::2]):
            return False
    return True


def structure_of(facts: Any) -> Structure | None:
    """Returns the structure in a fact of a trace; None where there is none, or none that can be.

    Args:
        facts: ``root``, ``nodes`` and ``footprint_bytes`` of a :class:`hftrace.schema.lines.Structure`.
    """
    if not isinstance(facts, Mapping):
        return None
    root, nodes, footprint = facts.get("root"), facts.get("nodes"), facts.get("footprint_bytes")
    if type(nodes) is not list or type(root) is not int or not 0 <= root < len(nodes):
        return None
    if not is_structure(nodes):
        return None
    sizes: list[int] = []
    for _, children, *_ in nodes:
        sizes.append(min(MAX_MODULES + 1, 1 + sum(sizes[child] for child in children[1::2])))
    if sizes[root] > MAX_MODULES:
        return None
    kinds = [
        Kind(name, tuple(zip(children[0::2], children[1::2], strict=True))) for name, children, *_ in nodes
    ]
    return Structure(kinds, root, footprint if type(footprint) is int and footprint >= 0 else None)


class Module(NamedTuple):
    """One module of a model."""

    path: str
    """Its name in the model; empty for the model itself."""
    kind: int
    parent: int
    """The position of the module around it; -1 for the model itself."""


def modules_of(structure: Structure) -> Iterator[Module]:
    """Yields every module in the model's order: each before those in it."""
    pending: list[tuple[str, str, int, int]] = [("", "", structure.root, -1)]
    position = 0
    while pending:
        prefix, name, kind, parent = pending.pop()
        path = f"{prefix}{name}"
        yield Module(path, kind, parent)
        inside = f"{path}." if parent >= 0 else ""
        pending.extend(
            (inside, child, number, position) for child, number in reversed(structure.kinds[kind].children)
        )
        position += 1
