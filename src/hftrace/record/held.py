"""The tensors that a model holds, in one walk: all that is asked when a load returns is asked of it.

The walk is its own and not ``named_parameters``: a model of 100,000 tensors
must cost a fraction of a second. Modules have a ``__getattr__``, which makes
each of their attributes expensive, so they are read from the modules'
dictionaries. What is kept is flat lists of what is no container: many
containers made at once set Python to collect garbage.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from hftrace.record.contents import all_plain

_TABLES = ("_modules", "_parameters", "_buffers")
_layout = operator.attrgetter("shape", "dtype", "device")
_version = operator.attrgetter("_version")
_requires_grad = operator.attrgetter("requires_grad")
BEFORE_LOADING, AFTER_LOADING = "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"
"""Where a module has what ``load_state_dict`` calls."""
UNKNOWN = 2
PARAMETER, BUFFER, NOT_SAVED = 0, 1, 2
"""Kinds of tensors; the last is a buffer outside of the state dict, which no checkpoint can hold."""


class Held:
    """The tensors of a model in its order. Whoever has it keeps them alive.

    Args:
        model: A torch module.
        scripted: Whether those of scripted modules are among them, which are other objects at each look.
    """

    def __init__(self, model: Any, *, scripted: bool = True) -> None:
        self.modules: list[Any] = []
        """Each module that holds tensors."""
        self.prefixes: list[str] = []
        """Of the names of its tensors."""
        self.ends: list[int] = []
        """Where its tensors end in the lists of those."""
        self.names: list[str] = []
        self.kinds: list[int] = []
        self.tensors: list[Any] = []
        self.scripted = False
        """Whether tensors of scripted modules may be among them."""
        self.hooked: set[int] = set()
        """The positions of those of ``modules`` that accelerate has hooked."""
        self.awaits_loading = False
        """Whether one of the modules has a hook that ``load_state_dict`` is to call."""
        self.root = model
        self.parents: list[Any] = []
        """Each module that has modules below it, before those."""
        self.children: list[dict[str, Any]] = []
        """What is directly below each of them, by name; None for what was taken out."""
        self.own_names: list[str] = []
        """What each of them is called by the one that it is in."""
        self.depths: list[int] = []
        """How many modules each of them is in."""
        self._walk(model, scripted)

    def _walk(self, model: Any, scripted: bool) -> None:
        names, tensors = self.names, self.tensors
        before, after = BEFORE_LOADING, AFTER_LOADING
        modules, prefixes, ends = self.modules, self.prefixes, self.ends
        buffers_at: list[tuple[int, int]] = []
        # An iterator for each module on the way down, no recursion: the host may be deep in its own stack.
        above: list[tuple[str, Iterator[tuple[str, Any]]]] = []
        outer, siblings = "", iter([("", model)])
        while True:
            for name, module in siblings:
                if module is None:
                    continue
                own = module.__dict__
                children = own.get("_modules")
                if not isinstance(children, dict):
                    own = _tables_of(module, tensors=scripted)
                    children = own["_modules"]
                    self.scripted = scripted
                parameters, buffers = own["_parameters"], own["_buffers"]
                prefix = f"{outer}{name}." if above else ""
                if parameters or buffers:
                    for its, tensor in parameters.items():
                        if tensor is not None:
                            names.append(prefix + its)
                            tensors.append(tensor)
                    if buffers:
                        for its, tensor in buffers.items():
                            if tensor is not None:
                                kind = NOT_SAVED if its in own["_non_persistent_buffers_set"] else BUFFER
                                buffers_at.append((len(tensors), kind))
                                names.append(prefix + its)
                                tensors.append(tensor)
                    if "_hf_hook" in own:
                        self.hooked.add(len(modules))
                    modules.append(module)
                    prefixes.append(prefix)
                    ends.append(len(tensors))
                try:
                    if own[before] or own[after]:
                        self.awaits_loading = True
                except KeyError:  # of a scripted module, or one that is not initialised
                    pass
                if children:
                    self.parents.append(module)
                    self.children.append(children)
                    self.own_names.append(name)
                    self.depths.append(len(above))
                    above.append((outer, siblings))
                    outer, siblings = prefix, iter(children.items())
                    break
            else:
                if not above:
                    break
                outer, siblings = above.pop()
        self.kinds = [PARAMETER] * len(tensors)
        for at, kind in buffers_at:
            self.kinds[at] = kind

    @functools.cached_property
    def classes(self) -> set[type]:
        """The classes of all modules, and perhaps that of None; costs nothing where kinds were looked for."""
        below = itertools.chain.from_iterable(map(dict.values, self.children))
        return {type(self.root), *map(type, below)}

    @functools.cached_property
    def ids(self) -> list[int]:
        """What tells the tensors apart while they live."""
        return list(map(id, self.tensors))

    @functools.cached_property
    def versions(self) -> list[int | None]:
        """How often each tensor was written in place, as torch counts; None where nobody counts."""
        try:
            return list(map(_version, self.tensors))
        except RuntimeError:  # one was made in inference mode
            return list(map(version_of, self.tensors))

    @functools.cached_property
    def trained(self) -> bytes:
        """Whether each tensor requires a gradient: 1 or 0; :data:`UNKNOWN` where it does not say."""
        try:
            return bytes(map(_requires_grad, self.tensors))
        except Exception:  # a library's own class, which may do anything
            return bytes(map(_trained, self.tensors))

    @functools.cached_property
    def layouts(self) -> tuple[list[int], list[tuple[Any, Any, Any]]] | None:
        """A number for each tensor, and the shape, dtype and device that each number stands for.

        None where one of the tensors holds others, or has no shape.
        """
        if not all_plain(self.tensors):
            return None
        numbers: defaultdict[Any, int] = defaultdict(itertools.count().__next__)
        try:
            return list(map(numbers.__getitem__, map(_layout, self.tensors))), list(numbers)
        except Exception:  # a nested tensor
            return None


def version_of(tensor: Any) -> int | None:
    """Returns how often a tensor was written in place; None for one made in inference mode."""
    try:
        return int(tensor._version)
    except RuntimeError:
        return None


def _trained(tensor: Any) -> int:
    try:
        return int(bool(tensor.requires_grad))
    except Exception:
        return UNKNOWN


def _tables_of(module: Any, *, tensors: bool) -> dict[str, Any]:
    """Returns the tables of a scripted module, which has them as properties and of its own types."""
    tables = {
        name: dict(getattr(module, name).items()) if tensors or name == "_modules" else {} for name in _TABLES
    }
    return {**tables, "_non_persistent_buffers_set": ()}
