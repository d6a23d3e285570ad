"""The adapters of a model as its load, or a function that changed it, has left them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from hftrace.analysis.values import natural, text

CHANGES = ("adapters", "merged", "unmerged", "unloaded", "casts", "frozen")
"""Attributes of a span that say what a function did to a model."""


class Adapter(NamedTuple):
    """One adapter."""

    name: str
    type: str
    """PEFT's word: ``LORA``."""
    modules: int
    """How many modules it was put around."""
    targets: Mapping[str, int]
    """These by the last part of their names."""
    whole: tuple[str, ...]
    """Modules that it has a copy of its own of."""
    layers: tuple[int, ...]
    parameters: int
    bytes: int
    trainable: int
    settings: Mapping[str, Any]
    base: str | None
    """The model that it is for, by its config."""
    base_revision: str | None


class Trainable(NamedTuple):
    """How much of a model is trainable: what ``print_trainable_parameters`` says."""

    parameters: int
    all: int


def adapters_in(facts: Mapping[str, Any]) -> list[Adapter]:
    """Returns the adapters that facts of a load or of a change tell."""
    noted = facts.get("adapters")
    return [
        _adapter(entry) for entry in (noted if isinstance(noted, list) else []) if isinstance(entry, Mapping)
    ]


def trainable_in(facts: Mapping[str, Any]) -> Trainable | None:
    """Returns how much is trainable; None where it is not told."""
    noted = facts.get("trainable")
    if not isinstance(noted, Mapping):
        return None
    own, whole = natural(noted.get("parameters")), natural(noted.get("all"))
    return None if own is None or whole is None else Trainable(own, whole)


def by_last_part(names: Any) -> Counter[str]:
    """Returns how many tensors there are by the last parts of their modules' names."""
    counts: Counter[str] = Counter()
    for name in names if isinstance(names, list) else ():
        parts = str(name).split(".")
        # "0.weight" of a Sequential says nothing without what it is in.
        kept = [part for part in parts[:-1] if not part.isdecimal()] or parts
        counts[kept[-1]] += 1
    return counts


def _adapter(entry: Mapping[str, Any]) -> Adapter:
    targets, settings, layers, whole = (
        entry.get(name) for name in ("targets", "settings", "layers", "whole")
    )
    return Adapter(
        text(entry.get("name")) or "",
        text(entry.get("type")) or "adapter",
        natural(entry.get("modules")) or 0,
        {str(name): natural(count) or 0 for name, count in targets.items()}
        if isinstance(targets, Mapping)
        else {},
        tuple(map(str, whole)) if isinstance(whole, list) else (),
        tuple(number for each in layers if (number := natural(each)) is not None)
        if isinstance(layers, list)
        else (),
        natural(entry.get("parameters")) or 0,
        natural(entry.get("bytes")) or 0,
        natural(entry.get("trainable")) or 0,
        settings if isinstance(settings, Mapping) else {},
        text(entry.get("base")),
        text(entry.get("base_revision")),
    )
