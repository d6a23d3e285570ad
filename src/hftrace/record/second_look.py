"""The models that loads returned: written down at return, and once more at the end if they changed.

Only weak references to the models are kept. What is done to them in between is
heard of where it is hooked (:mod:`hftrace.record.hooks.tables.surgery`); what
is not hooked shows when the model is looked at again.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection
from typing import Any

from hftrace.record.belongings import of_recorder
from hftrace.record.held import Held
from hftrace.record.identity import COPIED, INITIALIZED, MADE, SAME, STATE_DICT, WRITTEN, Followed, modules_of
from hftrace.record.recorder import Recorder, clock
from hftrace.record.snapshot import snapshot
from hftrace.record.trained import STEPPED, STEPPED_SINCE, Optimizers
from hftrace.record.watched import has_living, origins_of
from hftrace.schema import lines

ORIGINAL, SAVED = ".original_module.", ".modules_to_save."
"""Below the name of a module that PEFT trains whole: the model's own, and an adapter's copy of it."""


class Models:
    """The models of one recording.

    Args:
        recorder: Where they are written down.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._followed: list[Followed] = []
        self._lock = threading.RLock()
        self._looks = itertools.count(1)
        self._remnants: list[Followed] = []
        """Models that are gone, and of which tensors are still there, in something else."""
        self.optimizers = Optimizers()
        self._unseen: set[int] = set()
        """By identity: models whose changes since their load were taken note of, and not written down."""

    def loaded(
        self,
        load: int,
        model: Any,
        again: Callable[[], Any] | None = None,
        given: Collection[str] = (),
    ) -> Held:
        """Writes down the model that a load returned, and follows it from now on.

        Returns what it holds: whoever keeps that keeps the model.

        Args:
            load: The span of the load.
            model: The torch module.
            again: Returns it at any later time, None where it is gone; needed where nobody else keeps it.
            given: Names of the tensors that the load was seen to hand to it by ``load_state_dict``.
        """
        recorder = self._recorder
        held = Held(model)
        snapshot(recorder, load, model, held)
        if not recorder.open_loads:
            recorder.writes.clear()
        with self._lock:
            self._forget_dead()
            followed = self._of(model)
            if followed is None:
                followed = Followed(model, load, held)
                followed.model = again or followed.model
                inside = self._inside(model)
                for prefix, inner in inside:
                    inner.update()
                    followed.absorb(inner, prefix)
                    followed.since_ns = max(followed.since_ns, inner.since_ns)
                followed.adopt(load)
                followed.changed_by.clear()
                now = dict(zip(followed.look.names, followed.origins, strict=True)) if inside else {}
                for prefix, inner in inside:
                    inner.origins = [
                        now.get(prefix + name, origin)
                        for name, origin in zip(inner.look.names, inner.origins, strict=True)
                    ]
                    inner.part_of.add(load)
                    # Whose rows they were: the tensors themselves may be of a load inside of that one.
                    followed.part_of.add(inner.load)
                self._followed.append(followed)
            else:
                followed.update()
                followed.adopt(load)
                followed.changed_by.clear()
                for prefix, inner in self._inside(model):
                    if prefix:
                        # Where what is around it goes, this load's rows are of what is left.
                        inner.part_of.add(load)
            if given:
                followed.take(load, given)
            self._write(followed, 0)
        return held

    def wrapped(self, model: Any) -> None:
        """Follows a model that a function put around others without loading anything."""
        with self._lock:
            inside = self._inside(model)
            if inside and self._of(model) is None:
                prefix, inner = inside[0]
                followed = Followed(model, inner.load)
                for prefix, inner in inside:
                    followed.absorb(inner, prefix)
                    inner.part_of.add(inner.load)
                self._followed.append(followed)

    def watch(self, module: Any, name: str) -> None:
        """Writes down a module that the program has put together, and where its tensors come from.

        Args:
            module: The torch module; nothing of it is kept.
            name: What to call it; empty for nothing.
        """
        with self._lock:
            self._forget_dead()
            for each in self._followed:
                if each.update():
                    self._unseen.add(id(each))
            look = -next(self._looks)
            held = Held(module)
            snapshot(self._recorder, look, module, held)
            items = origins_of(module, held, [*self._followed, *self._remnants])
            self._recorder.write(lines.Watched(look, name, clock(), items))

    def _of(self, model: Any) -> Followed | None:
        return next((each for each in self._followed if each.model() is model), None)

    def _inside(self, model: Any) -> list[tuple[str, Followed]]:
        """Returns the followed models below a model, outermost first, with the prefix of their names."""
        if not self._followed:
            return []  # and the model is not walked through
        by_id = {id(each.model()): each for each in self._followed}
        return [(prefix, by_id[id(module)]) for prefix, module in modules_of(model) if id(module) in by_id]

    def _write(self, followed: Followed, look: int) -> None:
        items = followed.rows()
        if items or look:
            loads = {origin.load for origin in followed.origins} | followed.part_of
            replaces = sorted(loads - {0, followed.load})
            self._recorder.write(
                lines.Origins(followed.load, look, followed.since_ns, replaces, items, followed.changed_by)
            )

    def _forget_dead(self) -> None:
        """Lets go of models that are gone; the rows of one that had been changed say so."""
        for each in self._followed:
            if each.model() is None and each.changed_by:
                self._recorder.facts("stale", {"load": each.load, "changed_by": each.changed_by})
        gone = [each for each in self._followed if each.model() is None]
        self._followed = [each for each in self._followed if each.model() is not None]
        self._unseen.difference_update(map(id, gone))
        # A part of a model may be in use when the model itself is gone.
        self._remnants = [each for each in [*self._remnants, *gone] if has_living(each)]

    def alive(self) -> list[int]:
        """Returns the loads whose model is still there: the host has it, or nobody has collected it yet."""
        return [load for load, model in self._recorder.models if model() is not None]

    # -- what is done to models ------------------------------------------------------------------

    def touched_by(self, module: Any) -> list[Followed]:
        """Returns the followed models that a module is part of, or that are part of it, as they are now."""
        with self._lock:
            below = {id(each) for _, each in modules_of(module)}
            found = []
            for each in self._followed:
                model = each.model()
                if model is not None and (
                    id(model) in below or any(inner is module for _, inner in modules_of(model))
                ):
                    each.update()
                    # As long as it lies where the optimizer wrote it: it may be about to be moved.
                    if self._mark_trained(each):
                        self._unseen.add(id(each))
                    found.append(each)
            return found

    def knows(self, module: Any) -> bool:
        """Returns whether a module is a model that is followed, or one of transformers' that is a part of it.

        Other modules are not looked for: a program may ask this of each module of a model, in turn.
        """
        with self._lock:
            if any(each.model() is module for each in self._followed):
                return module is not None
        return hasattr(type(module), "_load_pretrained_model") and bool(self.loads_of(module))

    def loads_of(self, module: Any) -> set[int]:
        """Returns the loads of the followed models that a module is part of, or that are part of it."""
        with self._lock:
            below = {id(each) for _, each in modules_of(module)}
            return {
                each.load
                for each in self._followed
                if (model := each.model()) is not None
                and (id(model) in below or any(inner is module for _, inner in modules_of(model)))
            }

    def around(self, module: Any) -> Any:
        """Returns the largest followed model that a module is part of; the module where there is none."""
        with self._lock:
            found, size = module, 0
            for each in self._followed:
                model = each.model()
                inside = [inner for _, inner in modules_of(model)] if model is not None else []
                if len(inside) > size and any(inner is module for inner in inside):
                    found, size = model, len(inside)
            return found

    def initialized(self, module: Any, written: set[int]) -> None:
        """Puts down that tensors of a module were initialised again.

        Args:
            module: The module, which the call was for.
            written: The identities of the tensors that the call wrote.
        """
        tables = (getattr(module, "_parameters", None), getattr(module, "_buffers", None))
        tensors = {
            (id(module), name): tensor
            for table in tables
            for name, tensor in (table or {}).items()
            if id(tensor) in written
        }
        with self._lock:
            for each in self._followed:
                if tensors and each.wrote(tensors, INITIALIZED):
                    each.changed_by = list(dict.fromkeys([*each.changed_by, "_init_weights"]))

    def kept(self, tensors: dict[tuple[int, str], Any]) -> None:
        """Takes note that tensors were written since their models were looked at, with their own values.

        Args:
            tensors: The tensors, by the identities of their modules and their names there.
        """
        with self._lock:
            for each in self._followed if tensors else ():
                each.keeps(tensors)

    def follow(self, model: Any, load: int) -> None:
        """Begins to follow a model that is still being loaded, or that nobody has seen being loaded.

        Args:
            model: The torch module.
            load: The load that it is from; 0 if unknown.
        """
        with self._lock:
            if not any(
                inner is model
                for each in self._followed
                if each.model() is not None
                for _, inner in modules_of(each.model())
            ):
                self._followed.append(Followed(model, load))

    def changed(
        self,
        followed: list[Followed],
        function: str,
        new: str,
        changed: str,
        *,
        carry: bool = False,
        same_objects: bool = False,
        marks: dict[tuple[int, str], str] | None = None,
    ) -> None:
        """Looks again at models that a function has worked on.

        Args:
            followed: What :meth:`touched_by` returned before.
            function: Its name.
            new: See :meth:`hftrace.record.identity.Followed.update`.
            changed: The same.
            carry: The same.
            same_objects: The same.
            marks: See :meth:`hftrace.record.identity.Followed.mark`.
        """
        with self._lock:
            for each in followed:
                if each.update(new, changed, carry=carry, same_objects=same_objects) or marks:
                    each.changed_by.append(function)
                if marks:
                    each.mark(marks)
                if not (carry and self._recorder.open_loads):
                    # A load that moves what it has just put there has put it there all the same.
                    each.since_ns = clock()
                if new == MADE:
                    _mark_copies(each)

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Writes down each model again that is not what its load left."""
        with self._lock:
            self._forget_dead()
            inner = {
                id(below) for each in self._followed for prefix, below in self._inside(each.model()) if prefix
            }
            for each in self._followed:
                try:
                    self._look_again(each, id(each) in inner)
                except Exception as error:  # the others are looked at all the same
                    self._recorder.error("second look", error)
            self.optimizers.close()
            self._followed.clear()
            self._remnants.clear()
            self._unseen.clear()

    def _look_again(self, followed: Followed, is_part: bool) -> None:
        changed = followed.update() or bool(followed.changed_by) or id(followed) in self._unseen
        changed = self._mark_trained(followed) or changed
        model = followed.model()
        if changed and not is_part and followed.load and model is not None:
            # Below zero: no span has such a number.
            look = -next(self._looks)
            snapshot(self._recorder, look, model, Held(model))
            self._write(followed, look)

    def _mark_trained(self, followed: Followed) -> bool:
        """Puts down which tensors of a model an optimizer has written; returns whether there are any."""
        if not self.optimizers:
            return False
        look = followed.look
        marks = {
            slot: STEPPED_SINCE if origin.change.startswith(f"{STATE_DICT}:") else STEPPED
            for slot, key, origin in zip(look.slots, look.keys, followed.origins, strict=True)
            if origin.change.partition(":")[0] in (SAME, MADE, WRITTEN, STATE_DICT)
            and self.optimizers.wrote(key)
        }
        followed.mark(marks)
        return bool(marks)


def _mark_copies(followed: Followed) -> None:
    """An adapter that trains a whole module begins with a copy of it (PEFT's ``ModulesToSaveWrapper``)."""
    names = set(followed.look.names)
    for at, (name, origin) in enumerate(zip(followed.look.names, followed.origins, strict=True)):
        if origin.change == MADE and SAVED in name:
            module, _, rest = name.partition(SAVED)
            original = f"{module}{ORIGINAL}{rest.partition('.')[2]}"
            if original in names:
                followed.origins[at] = origin._replace(change=f"{COPIED}:{original}")


def models_of(recorder: Recorder) -> Models:
    """Returns the models that a recorder knows."""
    return of_recorder(recorder, Models)
