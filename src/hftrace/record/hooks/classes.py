"""Finds classes that load by a ``from_pretrained`` of their own, and methods of their own that generate.

No table names diffusers' classes, or a user's. The classes that are there when
tracing starts are looked through once; those of a module that is imported
later, when it has arrived.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.tables import generation, pipelines
from hftrace.record.hooks.tables.containers import MAKERS
from hftrace.record.hooks.tables.entry import entry_point
from hftrace.record.patching import function_of

KINDS = {
    "PretrainedConfig": "config",
    "PreTrainedConfig": "config",
    "PeftConfigMixin": "config",
    "GenerationConfig": "generation_config",
    "PreTrainedTokenizerBase": "tokenizer",
    "ProcessorMixin": "processor",
    "ImageProcessingMixin": "processor",
    "BaseVideoProcessor": "processor",
    "VideoProcessorMixin": "processor",
    "FeatureExtractionMixin": "processor",
    "PreTrainedModel": "load",
    "_BaseAutoModelClass": "load",
    "_BaseAutoBackboneClass": "load",
}
"""What the subclasses of a class of transformers or peft load, by its name."""
LIBRARIES = ("transformers", "peft")
CALLS = {
    name: (table.OWNERS, point) for table in (generation, pipelines) for name, point in table.CALLS.items()
}
"""Methods that are called once a model is there: the classes whose they are, and the point, by name."""
_LOOKED_FOR = frozenset((*MAKERS, *CALLS))

_own_names = type.__dict__["__dict__"].__get__


def known_classes() -> Iterator[type]:
    """Yields every class of the process, each once."""
    seen: set[int] = set()
    pending = type.__subclasses__(object)
    while pending:
        found = pending.pop()
        if id(found) not in seen:
            seen.add(id(found))
            yield found
            # By type itself: a metaclass may have a method of that name.
            pending += type.__subclasses__(found) if found is not type else ()


def classes_of(module_name: str) -> Iterator[type]:
    """Yields the classes that a module defines at its top."""
    module = sys.modules.get(module_name)
    for value in list(getattr(module, "__dict__", {}).values()):
        # Not isinstance: a lazy or deprecated name of the host would be used by that.
        if issubclass(type(value), type) and (_own_names(value) or {}).get("__module__") == module_name:
            yield value


def points_of(classes: Iterable[type]) -> Iterator[tuple[HookPoint, type, str]]:
    """Yields a hook point for each way to load that a class defines itself, with the class and the name."""
    for owner in classes:
        names = _own_names(owner) or {}
        # Of thousands of classes most have none of them, and each block looks at all.
        if _LOOKED_FOR.isdisjoint(names) or str(names.get("__module__")).startswith("torch."):
            continue  # Embedding.from_pretrained takes a tensor that is there
        for name in MAKERS:
            if name in names:
                yield _point(owner, name), owner, name
        for name, (owners, point) in CALLS.items():
            if name in names and _is_one_of(owner, owners) and _is_plain(owner, name):
                target = f"{owner.__module__}:{owner.__qualname__}.{name}"
                yield replace(point, target=target), owner, name


def _point(owner: type, name: str) -> HookPoint:
    target = f"{owner.__module__}:{owner.__qualname__}.{name}"
    phase = _kind_of(owner) if name == "from_pretrained" else None
    if phase is None:
        return HookPoint(target, "load", handler=MAKERS[name])
    more: dict[str, Any] = {"phase_after": "finalize"} if phase == "load" else {}
    return entry_point(target, phase, outermost_only=phase == "config", **more)


def _is_one_of(owner: type, names: tuple[str, ...]) -> bool:
    return any(
        base.__name__ in names and base.__module__.partition(".")[0] in LIBRARIES for base in owner.__mro__
    )


def _is_plain(owner: type, name: str) -> bool:
    """Returns whether a call of a method runs it: one of a generator does not."""
    function = function_of(owner, name)
    unlike = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    return function is not None and not function.__code__.co_flags & unlike


def _kind_of(owner: type) -> str | None:
    """Returns the phase of what a class of a known kind loads; None for any other class."""
    for base in owner.__mro__:
        if base.__module__.partition(".")[0] in LIBRARIES and base.__name__ in KINDS:
            return KINDS[base.__name__]
    return None
