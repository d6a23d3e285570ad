"""Tensors that a program reads from a file itself and hands to a model: which key of which file is in which.

``safetensors.torch.load_file`` and ``torch.load`` return tensors,
``load_state_dict`` takes tensors. A tensor that is handed over counts as the
one that was read where its storage and its place in it are the same and nothing
has been written into it since: whoever renames keys, or leaves some out, hands
over the same tensors, and whoever casts them does not. Only weak references to
the storages are kept, so no memory is. What comes from ``safe_open`` is known by
where it lies (:mod:`hftrace.record.hooks.mapped`).
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hftrace.record.belongings import of_recorder
from hftrace.record.hooks.capture import absolute, note_checkpoint, note_keys, noted_paths
from hftrace.record.hooks.mapped import Mapped
from hftrace.record.identity import modules_of
from hftrace.record.recorder import Recorder, clock
from hftrace.record.second_look import models_of
from hftrace.schema import lines

MAX_TENSORS = 200_000
"""Tensors that are remembered; of later ones nothing is said."""
STATE_DICT = ""
"""The "file" of tensors that were not seen to come from one."""


class _Read(NamedTuple):
    """A tensor of a file, as it was when it was read."""

    path: str
    group: str
    """The key of the file under which its own stands, with a dot; empty where it is not below another."""
    key: str
    """The whole of it, group included."""
    dtype: Any
    version: int
    identity: lines.Identity | None
    """Of the file."""
    time_ns: int
    by_key: bool = False
    """Whether it was taken out of an open file, of which nobody says that all is read."""


class _Source(NamedTuple):
    """What a load has tensors of: a file, or what stands below one of its keys."""

    path: str
    identity: lines.Identity | None
    group: str


class _Given(NamedTuple):
    """A tensor that a module took, and what it is then."""

    module: weakref.ref[Any]
    name: str
    tensor: int
    version: int | None
    path: str
    key: str
    time_ns: int
    thread: int


class Handed:
    """What was read from files and handed over, of one recording.

    Args:
        recorder: Where it is written down.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.mapped = Mapped(recorder)
        self._read: dict[tuple[Any, ...], _Read] = {}
        self._storages: list[int] = []
        self._pickles: dict[_Source, dict[str, Any]] = {}
        """What is in files that have no header."""
        self._given: dict[int, list[_Given]] = {}
        """By the span of the load that it is for."""
        self._free: Any = None
        self.loads: set[int] = set()
        """The loads whose models have been given something."""
        self._modules: dict[int, list[weakref.ref[Any]]] = {}
        """By load, the modules whose ``load_state_dict`` was called."""

    def close(self) -> None:
        """Forgets everything."""
        for storage in self._storages:
            self._free(storage)
        self._storages.clear()
        self._read.clear()
        self._pickles.clear()
        self._given.clear()
        self._modules.clear()
        self.mapped.close()
        self._recorder.belongings.pop(Handed, None)

    # -- files -------------------------------------------------------------------------------------

    def read(self, path: str | os.PathLike[str], tensors: Any) -> int:
        """Remembers what was read from a file; returns how many tensors that are."""
        if not isinstance(tensors, Mapping):
            return 0
        self._free = sys.modules["torch"].UntypedStorage._free_weak_ref
        path = absolute(path)
        identity = self._recorder.files.resolved(path)
        time = clock()
        groups = {"": tensors}
        if not path.endswith(".safetensors"):
            # A training's checkpoint has the model's tensors below a key of their own.
            groups |= {f"{key}.": each for key, each in tensors.items() if isinstance(each, Mapping)}
        return sum(self._read_group(path, identity, time, group, each) for group, each in groups.items())

    def _read_group(
        self, path: str, identity: lines.Identity | None, time: int, group: str, tensors: Mapping[Any, Any]
    ) -> int:
        count = 0
        described: dict[str, Any] = {}
        for name, tensor in tensors.items():
            place = _place(tensor)
            if place is None or not isinstance(name, str):
                continue
            count += 1
            key = group + name
            described[key] = _Described(tensor)
            if len(self._storages) < MAX_TENSORS:
                storage = tensor.untyped_storage()._weak_ref()
                self._storages.append(storage)
                version = _version(tensor)
                if version is not None:
                    found = _Read(path, group, key, tensor.dtype, version, identity, time)
                    # Under several keys it is one tensor: the first counts.
                    self._read.setdefault((storage, place), found)
        if described and not path.endswith(".safetensors"):
            self._pickles[_Source(path, identity, group)] = described
        return count

    def source_of(self, tensor: Any) -> _Read | None:
        """Returns what a tensor was read as; None where it was not, or is not the same any more."""
        place = _place(tensor)
        if place is None:
            return None
        found = self._read.get((self._storage_of(tensor), place)) if self._read else None
        if found is not None:
            same = found.dtype == tensor.dtype and found.version == _version(tensor)
            return found if same else None
        return self._mapped(tensor)

    def _storage_of(self, tensor: Any) -> int | None:
        """Returns what a storage is known by; while a weak reference is held, no other has its address."""
        try:
            storage = tensor.untyped_storage()._weak_ref()
        except Exception:
            return None
        self._free(storage)
        return int(storage)

    def _mapped(self, tensor: Any) -> _Read | None:
        """Returns what a tensor in a file's own memory is, if nobody has written into it."""
        if _version(tensor) != 0:
            return None
        try:
            found = self.mapped.place_of(tensor)
        except Exception:  # a tensor without memory of its own
            return None
        if found is None:
            return None
        return _Read(found.path, "", found.key, tensor.dtype, 0, found.identity, found.time_ns, True)

    # -- models ------------------------------------------------------------------------------------

    def given(
        self,
        load: int,
        module: Any,
        state_dict: Any,
        refused: set[str],
        *,
        assign: bool = False,
        chosen: bool = False,
    ) -> None:
        """Notes which tensors of a module have taken which of a state dict's, after ``load_state_dict``.

        Args:
            load: The span of the load that it belongs to.
            module: The module.
            state_dict: What was handed to it.
            refused: Keys that it has no place for.
            assign: Whether it took the tensors themselves, and no copies of them.
            chosen: Whether the program has put the state dict together: keys of a file that are not in it
                were left out, and nobody has looked for a place for them.
        """
        if not isinstance(state_dict, Mapping):
            return
        recorder = self._recorder
        slots = {
            f"{prefix}{name}": (each, name, tensor)
            for prefix, each in modules_of(module)
            for table in (each._parameters, each._buffers)
            for name, tensor in table.items()
            if tensor is not None
        }
        self._modules.setdefault(load, []).append(weakref.ref(module))
        time, thread = clock(), recorder.local.buffer.thread
        own: dict[str, Any] = {}
        sources: dict[_Source, None] = {}
        by_key: dict[str, list[str]] = {}
        unchanged: dict[tuple[int, str], Any] = {}
        found = self._given.setdefault(load, [])
        for key, value in state_dict.items():
            source = self.source_of(value)
            path, name = (source.path, source.key) if source is not None else (STATE_DICT, key)
            if source is not None:
                sources[_Source(path, source.identity, source.group)] = None
                if source.by_key or chosen:
                    by_key.setdefault(path, []).extend([name] if key in refused else [])
            if key in slots and key not in refused:
                each, leaf, tensor = slots[key]
                if source is None and not assign and same_memory(value, tensor):
                    unchanged[id(each), leaf] = tensor
                    continue  # its own values, as torch's set_model_state_dict completes what is missing
                found.append(
                    _Given(weakref.ref(each), leaf, id(tensor), _version(tensor), path, name, time, thread)
                )
                if source is None:
                    own[key] = value
            elif source is None and key in refused:
                own[key] = value
        if own:
            note_keys(recorder, STATE_DICT, own)
        models_of(recorder).kept(unchanged)
        own_objects = set(map(id, unchanged.values()))
        taken = (slots[key][2] for key in state_dict if key in slots and key not in refused)
        models_of(recorder).optimizers.loaded(each for each in taken if id(each) not in own_objects)
        self._note_sources(sources)
        for path, names in by_key.items():
            recorder.facts("by_key", {"load": load, "path": path, "refused": names})

    def _note_sources(self, sources: Iterable[_Source]) -> None:
        """Writes down the files that tensors are of, and what is in those without a header."""
        recorder = self._recorder
        files = dict.fromkeys((source.path, source.identity) for source in sources)
        several = len(files) > len({path for path, _ in files})
        for path, identity in files:
            if several or path not in noted_paths(recorder):
                note_checkpoint(recorder, path, identity)
        for source in sources:
            if source in self._pickles:
                note_keys(recorder, source.path, self._pickles[source])

    def settle(self, load: int, model: Any, *, search_since: int | None = None) -> set[str]:
        """Writes down by what names a model holds what its modules were handed, if nobody wrote since.

        Returns the names of what was handed over, without what was looked for.

        Args:
            load: The span of the load.
            model: The torch module.
            search_since: When the load began, where other tensors of files are looked for in the model: those
                that were put there by what is not hooked, as ``module.weight = Parameter(tensor)`` is.
        """
        found = self._given.pop(load, [])
        search = search_since is not None and bool(self._read or self.mapped)
        slots = _slots_of(model) if found or search else {}
        pairs: dict[tuple[str, int, int], dict[str, str]] = {}
        last: dict[str, tuple[str, int, int]] = {}
        handed: set[tuple[int, str]] = set()
        for each in found:
            module = each.module()
            slot = (id(module), each.name)
            if module is None or slot not in slots:
                continue
            handed.add(slot)
            name, tensor = slots[slot]
            # Handed over again: only the last one counts.
            group = last.pop(name, None)
            if group is not None:
                pairs[group].pop(name)
            if id(tensor) == each.tensor and _version(tensor) == each.version:
                last[name] = (each.path, each.time_ns, each.thread)
                pairs.setdefault(last[name], {})[name] = each.key
        if search_since is not None and search:
            for slot, (name, tensor) in slots.items():
                source = self.source_of(tensor) if slot not in handed else None
                if source is not None:
                    time = max(source.time_ns, search_since)
                    group = (source.path, time, self._recorder.local.buffer.thread)
                    pairs.setdefault(group, {})[name] = source.key
        if pairs or found:
            self.loads.add(load)
        for (path, time, thread), names in pairs.items():
            items: list[str | None] = [part for name, key in names.items() for part in (key, name)]
            self._recorder.write(lines.Assigned(load, path, time, thread, items))
        return set(last)

    def only_module(self, load: int) -> Any:
        """Returns the module that a load has handed something to, where it is one and is there."""
        found = {id(module): module for each in self._modules.get(load, ()) if (module := each()) is not None}
        return next(iter(found.values())) if len(found) == 1 else None

    def forget(self, load: int) -> None:
        """Forgets what was handed over in a load that failed."""
        self._given.pop(load, None)


def _slots_of(model: Any) -> dict[tuple[int, str], tuple[str, Any]]:
    """Returns name in the model, and tensor, by the identity of its module and its name there."""
    slots: dict[tuple[int, str], tuple[str, Any]] = {}
    for prefix, module in modules_of(model):
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    slots.setdefault((id(module), name), (prefix + name, tensor))
    return slots


class _Described:
    """What a tensor of a file is, without the tensor."""

    def __init__(self, tensor: Any) -> None:
        self.dtype = tensor.dtype
        self.shape = tuple(tensor.shape)
        self._bytes = tensor.element_size()
        self._count = tensor.numel()

    def element_size(self) -> int:
        """Returns the bytes of one element."""
        return int(self._bytes)

    def numel(self) -> int:
        """Returns how many elements there are."""
        return int(self._count)


def _place(tensor: Any) -> tuple[Any, ...] | None:
    """Returns where in its storage a tensor lies; None for what is no plain tensor."""
    if not hasattr(tensor, "untyped_storage"):
        return None
    try:
        return int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride())
    except Exception:  # a lazy or sparse tensor
        return None


def same_memory(one: Any, other: Any) -> bool:
    """Returns whether two tensors are views of the same place."""
    try:
        same = one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    except Exception:  # a tensor without a storage of its own
        return one is other
    return same and _place(one) == _place(other)


def _version(tensor: Any) -> int | None:
    try:
        return int(tensor._version)
    except RuntimeError:  # made in inference mode: nobody counts
        return None


def handed_of(recorder: Recorder) -> Handed:
    """Returns what a recorder knows of tensors that were handed over."""
    return of_recorder(recorder, Handed)
