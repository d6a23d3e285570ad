"""Installs the hook points around a recorder, keeps up with late imports, and takes all of it off again."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import types
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hftrace.record.belongings import of_recorder
from hftrace.record.calls import calls_of
from hftrace.record.children import Children
from hftrace.record.environment import collect
from hftrace.record.hooks.beginnings import entry_codes
from hftrace.record.hooks.classes import classes_of, known_classes, points_of
from hftrace.record.hooks.events import EventHandler, undecorated
from hftrace.record.hooks.generations import installed_loader, loader_facts
from hftrace.record.hooks.handed import handed_of
from hftrace.record.hooks.initializers import init_weights_handler, initialize_again_handler
from hftrace.record.hooks.late import late_of, watch
from hftrace.record.hooks.lookup import STAND_IN, find, module_is_absent
from hftrace.record.hooks.moving import moves_of
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.tables import POINTS
from hftrace.record.hooks.tables.containers import MAKERS
from hftrace.record.hooks.tables.entry import AUTO_FACTORY, AUTO_MODULE, entry_handler, instantiate_handler
from hftrace.record.hooks.tables.gguf import LEGACY, processors
from hftrace.record.hooks.tables.surgery import backend_points
from hftrace.record.hooks.ties import tying_handler
from hftrace.record.hooks.wrappers import span_handler
from hftrace.record.host_globals import HostGlobals
from hftrace.record.imports import Imports
from hftrace.record.living import Living
from hftrace.record.patching import (
    Undo,
    function_of,
    is_patched_copy,
    original_code,
    patch,
    source_of,
    take_off,
)
from hftrace.record.ranks import job_key, own_rank, rank_facts
from hftrace.record.recorder import Recorder, shielded
from hftrace.record.releases import releases_of
from hftrace.record.second_look import models_of
from hftrace.record.session import recording
from hftrace.record.surroundings import Surroundings

_active: Living[Tracer] = Living()


def _after_fork() -> None:
    for tracer in _active:
        tracer.abandon()


def _after_fork_in_parent() -> None:
    for tracer in _active:
        tracer.forked()


if hasattr(os, "register_at_fork"):
    # Cannot be taken back, so it is done once and knows the tracers by weak reference.
    os.register_at_fork(after_in_child=_after_fork, after_in_parent=_after_fork_in_parent)


class Tracer:
    """Traces the loads of this process from :meth:`start` to :meth:`stop`.

    Args:
        directory: Where the journal is written.
        rank: The rank of this process.
        exact_peaks: See :class:`hftrace.record.recorder.Recorder`.
        facts: What else the journal's header says.
    """

    def __init__(
        self,
        directory: Path,
        *,
        rank: int = 0,
        exact_peaks: bool = True,
        facts: dict[str, Any] | None = None,
    ) -> None:
        # Said at once: whoever finds the journal of a rank that was killed has to know of which job it was.
        job = {"job": job_key()} if own_rank().of > 1 else {}
        self.recorder = Recorder(
            directory, rank=rank, exact_peaks=exact_peaks, facts={**job, **(facts or {})}
        )
        self.found: list[str] = []
        self.stand_ins: dict[str, str] = {}
        """For each hook point that is missing, but for whose parameters another function stood in: which."""
        self._undo: list[Undo] = []
        self._waiting: dict[str, list[HookPoint]] = {}
        self._classes: set[type] = set()
        self._functions: set[types.FunctionType] = set()
        self._lock = threading.RLock()
        self._stopped = False
        self._globals = HostGlobals()
        self._surroundings: Surroundings | None = None

    def start(self) -> None:
        """Installs the hook points that can be, watches for the rest, and begins to record."""
        shielded(self.recorder, "memory at the start", self._note_memory)
        shielded(self.recorder, "rank", self._note_rank)
        shielded(self.recorder, "earlier", self.recorder.earlier.look, entry_codes)
        self.recorder.on_module = self._module_arrived
        self.recorder.on_model_class = self._model_class
        self._globals.look()
        with self._lock:
            for point in (*POINTS, *backend_points()):
                self._install(point)
            for name in (AUTO_MODULE, LEGACY):
                if name in sys.modules:
                    self._classes_of(name)
            shielded(self.recorder, "classes", self._makers, known_classes())
            watch(self.recorder, tuple(MAKERS), self._class_of_code)
            self.recorder.watched_modules.update(self._waiting, {AUTO_MODULE})
        self.recorder.children = shielded(self.recorder, "children", Children)
        self._surroundings = shielded(self.recorder, "surroundings", Surroundings, self.recorder.memory)
        _active.add(self)
        self.recorder.start()
        recording.add(self.recorder)

    def _note_memory(self) -> None:
        """Writes down what the process holds before anything is loaded: loads are held against it."""
        reading = self.recorder.memory.current()
        facts = {"rss_anon_bytes": reading.rss_anon, "rss_file_bytes": reading.rss_file}
        self.recorder.facts("at_start", facts)

    def _note_rank(self) -> None:
        """Writes down which rank of which job this is, where there are several."""
        facts = rank_facts()
        if facts is not None:
            self.recorder.facts("process", facts)

    def forked(self) -> None:
        """Notes, in the parent, that the process was forked."""
        children = self.recorder.children
        if children is not None and self.recorder.active:
            child = shielded(self.recorder, "os.fork", children.forked)
            if child is not None:
                self.recorder.facts("child", child)

    def abandon(self) -> None:
        """Stops recording in the child after a fork: journal and trace are the parent's."""
        self.recorder.abandon()
        self._lock = threading.RLock()  # a thread that the child does not have may hold it

    def _install(self, point: HookPoint) -> None:
        try:
            function, target, state = find(point)
        except Exception as error:
            self.recorder.error(point.target, error)
            return
        if function is None:
            if state == "not imported":
                self._waiting.setdefault(point.module, []).append(point)
        elif self._attach(replace(point, target=target), function):
            if state == STAND_IN:
                self.stand_ins[point.target] = target
            else:
                self.found.append(point.target)

    def _attach(self, point: HookPoint, function: types.FunctionType) -> bool:
        """Puts a hook point's handler around a function; returns whether one is there now."""
        if isinstance(point.handler, EventHandler):
            function = undecorated(function)
        if function in self._functions:
            # The same function by another name, as PretrainedConfig is PreTrainedConfig in 5.x.
            return True
        recorder = self.recorder
        try:
            number = recorder.hook(
                point.target,
                point.stands_for or point.function,
                "" if point.stands_for else source_of(function),
                point.phase,
                point.phase_before,
                point.phase_after,
            )
            build = point.handler or span_handler
            hot = isinstance(point.handler, EventHandler)
            undo = patch(function, lambda original: build(recorder, point, number, function, original), hot)
        except Exception as error:
            recorder.error(point.target, error)
            return False
        if self._stopped:  # on this thread, by a collection that found the recorded generator
            undo()
            return False
        self._undo.append(undo)
        self._functions.add(function)
        return True

    def _hook(self, point: HookPoint, function: types.FunctionType) -> None:
        if self._attach(point, function):
            self.found.append(point.target)

    def _module_arrived(self, name: str) -> None:
        with self._lock:
            if self._stopped:
                return
            if name in self.recorder.watched_modules:
                for point in (*self._waiting.pop(name, []), *(backend_points() if name == "torch" else ())):
                    self._install(point)
                self._classes_of(name)
                self._globals.look()
            self._makers(classes_of(name))

    def _makers(self, classes: Iterable[type]) -> None:
        """Hooks what classes that no table names have to load by."""
        for point, owner, name in points_of(classes):
            function = function_of(owner, name)
            if function is not None and function not in self._functions and not is_patched_copy(function):
                self._hook(point, function)

    def _classes_of(self, name: str) -> None:
        """Hooks what several classes of a module have each of their own."""
        if name == AUTO_MODULE:
            self._auto_classes()
        elif name == LEGACY:
            for point in processors():
                self._install(point)

    def _class_of_code(self, code: types.CodeType) -> tuple[str, bool] | None:
        """Hooks what classes have come since; returns the name of the one whose function has this code."""
        found = None
        classes = list(known_classes())
        for _, owner, name in points_of(classes):
            function = function_of(owner, name)
            if function is not None and original_code(inspect.unwrap(function)) is code:
                found = (
                    owner.__name__,
                    any(base.__module__ == "torch.nn.modules.module" for base in owner.__mro__),
                )
        with self._lock:
            if not self._stopped:
                self._makers(classes)
        return found

    def _auto_classes(self) -> None:
        """Hooks each auto class's own ``from_pretrained``, a copy of its base's (``copy_func``)."""
        base = vars(sys.modules.get(AUTO_FACTORY, sys)).get("_BaseAutoModelClass")
        for name, value in list(vars(sys.modules[AUTO_MODULE]).items()):
            if not isinstance(value, type) or base is None or not issubclass(value, base):
                continue
            function = function_of(value, "from_pretrained")
            if function is not None and not is_patched_copy(function):
                target = f"{AUTO_MODULE}:{name}.from_pretrained"
                self._hook(HookPoint(target, "load", handler=entry_handler), function)

    def _model_class(self, model_class: Any) -> None:
        """Hooks what a concrete model class defines itself: its ``__init__`` and its overrides."""
        if not isinstance(model_class, type):
            return
        with self._lock:
            if self._stopped or model_class in self._classes:
                return
            self._classes.add(model_class)
            loader = installed_loader()
            initialised = False
            for owner in model_class.__mro__:
                if owner.__module__.partition(".")[0] == "torch" or owner is object:
                    break
                target = f"{owner.__module__}:{owner.__qualname__}"
                function = function_of(owner, "__init__")
                if function is not None and not initialised:
                    # The nearest __init__ is the one that cls(config) calls.
                    initialised = True
                    self._hook(
                        HookPoint(
                            f"{target}.__init__",
                            "instantiate",
                            handler=instantiate_handler,
                            phase_before="instantiate",
                        ),
                        function,
                    )
                function = function_of(owner, "tie_weights")
                if function is not None:
                    self._hook(
                        HookPoint(
                            f"{target}.tie_weights",
                            "tie",
                            outermost_only=True,
                            phase_before="tie",
                            handler=tying_handler,
                        ),
                        function,
                    )
                function = function_of(owner, "_init_weights")
                if function is not None:
                    # Where a load calls it for every module it changes nothing that was loaded; the spans
                    # of initialize_weights and _initialize_missing_keys hold it anyway.
                    always = loader is not None and loader.generation.init_weights_always
                    handler = initialize_again_handler if always else init_weights_handler
                    point = HookPoint(f"{target}._init_weights", "initialize", handler=handler)
                    self._hook(point, function)

    def missing(self) -> list[str]:
        """Returns the hook points that the loader at hand should have and has not."""
        loader = installed_loader()
        found = set(self.found)
        return [
            point.target
            for point in POINTS
            if loader is not None
            and loader.expects(point)
            and point.target not in found
            and (point.module in sys.modules or module_is_absent(point.module))
        ]

    def _say_what_else(self) -> None:
        """Writes down what else went on: other processes, other libraries."""
        recorder = self.recorder
        if recorder.children is not None:
            late, facts = recorder.children.close()
            for child in late:
                recorder.facts("child", child)
            recorder.facts("children", facts)
        if self._surroundings is not None:
            recorder.facts("surroundings", self._surroundings.changes())

    def _detach(self) -> None:
        """Takes every hook off, also where an exception comes in between; may be called again."""
        with self._lock:
            self._stopped = True
            self.recorder.active = False
            take_off(self._undo)
            self._undo.clear()
        of_recorder(self.recorder, Imports).close()
        _active.discard(self)
        recording.discard(self.recorder)

    def drop(self) -> None:
        """Lets go of all that :meth:`start` and :meth:`stop` have not, because an exception left them.

        A Ctrl-C comes at any moment. Nothing is written any more but what waits; after a stop that was
        whole it does nothing.
        """
        self._detach()
        if os.getpid() == self.recorder.pid:
            self.recorder.drop()

    def stop(self) -> None:
        """Takes every hook off and closes the journal; a second call does nothing."""
        with self._lock:
            if self._stopped:
                return
            recorder = self.recorder
            self._detach()
        if late_of(recorder) is not None:
            shielded(recorder, "late", late_of(recorder).close)
        shielded(recorder, "handed", handed_of(recorder).close)
        if os.getpid() != recorder.pid:
            return
        shielded(recorder, "calls", calls_of(recorder).close)
        shielded(recorder, "moves", moves_of(recorder).close)
        shielded(recorder, "releases", releases_of(recorder).close)
        shielded(recorder, "second look", models_of(recorder).close)
        shielded(recorder, "surroundings", self._say_what_else)
        try:
            facts = {**collect(), **loader_facts()}
            facts["hooks"] = {
                "found": len(self.found),
                "missing": self.missing(),
                "stand_ins": self.stand_ins,
            }
            facts["changed_globals"] = self._globals.changed()
            recorder.facts("environment", facts)
            # Known at last: the group may have been set up after the recording began.
            self._note_rank()
        except Exception as error:
            recorder.error("environment", error)
        recorder.stop()
