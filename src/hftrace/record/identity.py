"""Follows the tensors of loaded models through all that is done to them: by what they are, not by name.

A name says where a tensor stands now. Adapters wrap modules, models are put
inside of other models, layers are replaced: the name changes while the weights
stay, or stays while they change. A tensor counts as the same where its storage
is: a weak reference to the storage keeps neither memory nor tensor, and while
it is held no other storage can take that address. (A weak reference to the
*tensor* would make ``torch.utils.swap_tensors`` fail, and with it ``Module.to``
of quantised models.)
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, TypeAlias

from hftrace.record.held import Held, version_of
from hftrace.record.layouts import Layout, layouts_of, places_of

SAME = ""
"""Nothing that was seen has changed the tensor since its load, whatever it is called now."""
MADE = "made"
"""An adapter's own initialisation made it; a weight that was loaded into it afterwards counts more."""
COPIED = "copied"
"""A copy of the tensor that its origin names; until that is settled, of the one named after a colon."""
CAST = "cast"
"""Cast again after its load; the dtypes that it had in between follow after a colon."""
WRITTEN = "written"
"""It was written in place by code that is not hooked."""
REPLACED = "replaced"
"""Another tensor stands there now, put by code that is not hooked."""
BEFORE = "before"
"""It was there before anything was recorded."""
COMPUTED = "computed"
"""What follows after a colon is the function that computed it anew."""
STATE_DICT = "state_dict"
"""The caller loaded it from a state dict; the key follows after a colon."""
INITIALIZED = "initialized"
"""The model's own initialisation has written it again."""
BLANK = "blank"
"""Allocated again without values."""


class Origin(NamedTuple):
    """Where a tensor of a model comes from, as far as the loads that were recorded know it."""

    load: int
    """The span of the load that put it there; 0 where none did."""
    name: str
    """What that load knew it by."""
    change: str = SAME
    """What has become of it since."""


Key: TypeAlias = "tuple[Any, ...]"


class Look:
    """The tensors of a model at one moment: their names, and what tells them apart.

    Taken of each model when its load returns, so it keeps no more of a tensor
    than must be asked then; what follows from that waits until it is needed.

    Args:
        model: A torch module.
        held: Its tensors, where somebody has walked through it already.
    """

    def __init__(self, model: Any, held: Held | None = None) -> None:
        self._storage = sys.modules["torch"].UntypedStorage
        if held is None or held.scripted:
            held = Held(model, scripted=False)
        # The modules and tensors themselves are let go of.
        self._modules: list[weakref.ref[Any]] = list(map(weakref.ref, held.modules))
        self._module_ids: list[int] = list(map(id, held.modules))
        self._prefixes = held.prefixes
        self._ends = held.ends
        self.names = held.names
        """Of the tensors, in the model's order."""
        self.ids = held.ids
        self.versions = held.versions
        self.trained = held.trained
        self._layouts = layouts_of(held)
        self._places = places_of(held.tensors)

    def __del__(self) -> None:
        for storage in vars(self).get("_places", ([],))[0]:  # none of one that could not be taken
            if storage is not None:
                self._storage._free_weak_ref(storage)

    @functools.cached_property
    def keys(self) -> list[Key | None]:
        """Storage and place of each tensor; None for one that has no storage of its own."""
        storages, offsets = self._places
        return [
            None if storage is None else (storage, offset, layout.shape)
            for storage, offset, layout in zip(storages, offsets, self.layouts, strict=True)
        ]

    @functools.cached_property
    def layouts(self) -> list[Layout]:
        """Shape and dtype of each tensor, and whether it is on meta."""
        numbers, layouts = self._layouts
        return [layouts[number] for number in numbers]

    @functools.cached_property
    def slots(self) -> list[tuple[int, str]]:
        """The module that holds each tensor, by its identity, and the tensor's name in it."""
        found = []
        begin = 0
        for module, prefix, end in zip(self._module_ids, self._prefixes, self._ends, strict=True):
            found += [(module, name[len(prefix) :]) for name in self.names[begin:end]]
            begin = end
        return found

    @functools.cached_property
    def places(self) -> dict[tuple[int, str], int]:
        """The position of each tensor by its slot."""
        return {slot: at for at, slot in enumerate(self.slots)}

    def lives(self, at: int) -> bool:
        """Returns whether the storage of a tensor has been there ever since."""
        storage = self._places[0][at]
        return storage is not None and not self._storage._expired(storage)

    def slots_that_live(self) -> dict[tuple[int, str], int]:
        """Returns the position of each tensor by its slot, where the module of that lives."""
        living = {
            identity
            for identity, module in zip(self._module_ids, self._modules, strict=True)
            if module() is not None
        }
        return {slot: at for slot, at in self.places.items() if slot[0] in living}

    def alike(self, at: int, other: Look, there: int) -> bool:
        """Returns whether a tensor is the object that it was, of the same dtype and shape."""
        key, before = self.keys[at], other.keys[there]
        return (
            self.ids[at] == other.ids[there]
            and self.layouts[at].dtype == other.layouts[there].dtype
            and key is not None
            and before is not None
            and key[2] == before[2]
        )

    def same_as(self, other: Look) -> bool:
        """Returns whether nothing differs: names, tensors, storages, writes."""
        return (
            self.ids == other.ids
            and self.versions == other.versions
            and self.trained == other.trained
            and self._places == other._places
            and None not in self._places[0]
            and self.layouts == other.layouts
            and self.names == other.names
        )


def modules_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields each module below a model, itself first, with the prefix of its tensors' names."""
    pending: list[tuple[str, Any]] = [("", model)]
    while pending:
        prefix, module = pending.pop()
        yield prefix, module
        children = module.__dict__.get("_modules") or {}
        pending.extend(
            (f"{prefix}{name}.", children[name]) for name in reversed(children) if children[name] is not None
        )


class Followed:
    """A model whose tensors are followed.

    Args:
        model: A torch module; only a weak reference to it is kept.
        load: The load that its tensors come from as far as nothing else is known; 0 for none.
        held: Its tensors, where somebody has walked through it already.
    """

    def __init__(self, model: Any, load: int, held: Held | None = None) -> None:
        self.model: Callable[[], Any] = weakref.ref(model)
        self.look = Look(model, held)
        self.load = load
        self.changed_by: list[str] = []
        """The functions that have changed the model since it was last written down."""
        self.since_ns = 0
        """When it was looked at last: what a load puts into it later takes the place of what it had."""
        self.part_of: set[int] = set()
        """The loads whose models have stood around this one."""
        self._origins: list[Origin] | None = None
        self._given: dict[int, set[str]] = {}
        """The names that each load has given it by ``load_state_dict``, of those that did."""

    @property
    def origins(self) -> list[Origin]:
        """Where each tensor comes from."""
        if self._origins is None:
            change = SAME if self.load else BEFORE
            self._origins = [Origin(self.load, name, change) for name in self.look.names]
        return self._origins

    @origins.setter
    def origins(self, origins: list[Origin]) -> None:
        self._origins = origins

    @property
    def is_as_loaded(self) -> bool:
        """Whether nothing is known of any tensor but that the load put it there."""
        return self._origins is None and bool(self.load)

    def update(
        self, new: str = REPLACED, changed: str = "", *, carry: bool = False, same_objects: bool = False
    ) -> bool:
        """Looks at the model again, and works out where each of its tensors comes from now.

        Args:
            new: What is put down for a tensor that was not there before.
            changed: What is put down for one that stands in the place of another, or was written in
                place; empty where nobody knows who did it.
            carry: True after a function that moves or casts tensors and keeps their names and meaning.
            same_objects: True after one that gives parameters other memory with the same values.

        Returns:
            Whether anything has changed.
        """
        model = self.model()
        if model is None:
            return False
        before, look = self.look, Look(model)
        if look.same_as(before):
            return False
        by_key: dict[Key, list[int]] = {}
        for at, key in enumerate(before.keys):
            if key is not None and before.lives(at):
                by_key.setdefault(key, []).append(at)
        by_name = {name: at for at, name in enumerate(before.names)}
        by_slot = before.slots_that_live()
        origins = []
        for at, (name, slot, key) in enumerate(zip(look.names, look.slots, look.keys, strict=True)):
            known = by_key.get(key) if key is not None else None
            earlier = by_slot.get(slot)
            named = by_name.get(name)
            if known:
                # Tied tensors share a storage: the one in the same place, else the one of the same name.
                found = next((each for each in (earlier, named) if each in known), known[0])
                assert found is not None
                origin = self.origins[found]
                if look.ids[at] == before.ids[found] and look.versions[at] != before.versions[found]:
                    origin = origin._replace(change=changed or WRITTEN)
                origins.append(origin)
            elif named is not None and (
                carry
                or (look.layouts[at].on_meta and earlier == named)
                or (same_objects and earlier == named and look.alike(at, before, named))
            ):
                origin = self.origins[named]
                dtype = before.layouts[named].dtype
                if look.layouts[at].dtype != dtype:
                    origin = _cast(origin, dtype)
                origins.append(origin)
            elif earlier is not None:
                origins.append(self.origins[earlier]._replace(change=changed or REPLACED))
            else:
                origins.append(Origin(0, name, new))
        self.origins = origins
        self.look = look
        return True

    def mark(self, changes: dict[tuple[int, str], str]) -> None:
        """Puts down what a function did to tensors, by their modules' identities and their names there."""
        self.origins = [
            origin._replace(change=changes[slot]) if slot in changes else origin
            for slot, origin in zip(self.look.slots, self.origins, strict=True)
        ]

    def wrote(self, tensors: dict[tuple[int, str], Any], change: str) -> bool:
        """Puts down at once that tensors have been written, and takes these writes for known.

        Args:
            tensors: The tensors, by the identities of their modules and their names there.
            change: The word for it.

        Returns:
            Whether any of them is of this model.
        """
        places = self.look.places
        found = [(places[slot], tensor) for slot, tensor in tensors.items() if slot in places]
        for at, tensor in found:
            if self.look.ids[at] == id(tensor):
                self.origins[at] = self.origins[at]._replace(change=change)
                self.look.versions[at] = version_of(tensor)
        return bool(found)

    def keeps(self, tensors: dict[tuple[int, str], Any]) -> None:
        """Takes writes for none: the tensors hold what they held before; see :meth:`wrote`."""
        places = self.look.places
        for slot, tensor in tensors.items():
            at = places.get(slot)
            if at is not None and self.look.ids[at] == id(tensor):
                self.look.versions[at] = version_of(tensor)

    def settle_copies(self) -> None:
        """Gives each copy the origin of what it was copied from, where that is as its load left it."""
        known = dict(zip(self.look.names, self.origins, strict=True))
        for at, origin in enumerate(self.origins):
            word, _, original = origin.change.partition(":")
            if word == COPIED and original:
                found = known.get(original)
                unchanged = found is not None and found.load and not found.change
                self.origins[at] = (
                    found._replace(change=COPIED) if found and unchanged else origin._replace(change=REPLACED)
                )

    def adopt(self, load: int) -> None:
        """Makes the tensors that came in during a load its own: what it knows of them goes by their names."""
        if self.is_as_loaded and self.load == load:
            return
        origins = self.origins  # as the load knows them that it has been of until now
        if self.load:
            self.part_of.add(self.load)  # whose rows are of the model as it is now, whatever is left of them
        self.load = load
        self.settle_copies()
        self.origins = [
            Origin(load, name, MADE if origin.change == MADE else SAME)
            if not origin.load and origin.change != BEFORE
            else origin
            for name, origin in zip(self.look.names, origins, strict=True)
        ]

    def take(self, load: int, given: Collection[str]) -> None:
        """Takes note of a load that has handed tensors to it, perhaps one of several that fill it in turn.

        What none of these has given yet is the last one's: the others have no more to say of it.

        Args:
            load: The load, which is the one that it is of now.
            given: The names of the tensors.
        """
        if not self.is_as_loaded:
            self.origins = [
                Origin(load, name)
                if name in given
                or (not origin.change and origin.name not in self._given.get(origin.load, (origin.name,)))
                else origin
                for name, origin in zip(self.look.names, self.origins, strict=True)
            ]
        # Of a load that nothing is from any more nobody asks: a program may load thousands of times.
        living = set() if self.is_as_loaded else {origin.load for origin in self.origins}
        self._given = {each: names for each, names in self._given.items() if each in living}
        self._given[load] = set(given)

    def absorb(self, inner: Followed, prefix: str) -> None:
        """Takes over what is known of a model that stands inside of this one, at a prefix of its names."""
        inner.settle_copies()
        known = dict(zip(inner.look.names, inner.origins, strict=True))
        by_key = dict(zip(inner.look.keys, inner.origins, strict=True))
        by_key.pop(None, None)
        for at, (name, key) in enumerate(zip(self.look.names, self.look.keys, strict=True)):
            origin = known.get(name[len(prefix) :]) if name.startswith(prefix) else by_key.get(key)
            if origin is not None:
                self.origins[at] = origin
        self.changed_by += inner.changed_by
        self._given |= inner._given

    def rows(self) -> list[Any]:
        """Returns name, load, name there and change of each tensor that is not all as its load left it."""
        if self.is_as_loaded:
            return []
        self.settle_copies()
        return [
            field
            for name, origin in zip(self.look.names, self.origins, strict=True)
            if origin != (self.load, name, SAME)
            for field in (name, *origin)
        ]


def _cast(origin: Origin, dtype: Any) -> Origin:
    """Returns the origin of a tensor that had a dtype until now."""
    word, _, passed = origin.change.partition(":")
    if word not in (SAME, CAST):
        return origin
    through = [*filter(None, passed.split(",")), str(dtype).removeprefix("torch.")]
    return origin._replace(change=f"{CAST}:{','.join(through)}")
