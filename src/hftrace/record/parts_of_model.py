"""Writes down what a load has made of several models that are no torch module together."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

from hftrace.record.recorder import Recorder
from hftrace.record.releases import releases_of
from hftrace.record.second_look import models_of

ModelsIn = Callable[[Any], Mapping[str, Any]]


class Together:
    """Models by name, as far as a walk through a torch module needs one. It goes when it was looked at.

    Args:
        models: The models.
    """

    def __init__(self, models: Mapping[str, Any]) -> None:
        self._modules = dict(models)
        self._parameters: dict[str, Any] = {}
        self._buffers: dict[str, Any] = {}
        self._non_persistent_buffers_set: set[str] = set()
        self.training = any(getattr(model, "training", False) for model in models.values())


class _Again:
    """Puts the models of an object together at each look; only a weak reference to it is kept."""

    def __init__(self, whole: Any, models_in: ModelsIn) -> None:
        self._whole = weakref.ref(whole)
        self._models_in = models_in
        self._type = type(type(whole).__name__, (Together,), {"__module__": type(whole).__module__})

    def __call__(self) -> Any:
        """Returns them as they are now; None where the object is gone."""
        whole = self._whole()
        return None if whole is None else self._type(self._models_in(whole))


def together(recorder: Recorder, load: int, whole: Any, models_in: ModelsIn) -> None:
    """Writes down the models of what a load has returned as one, and follows them from now on.

    Args:
        recorder: Where to.
        load: The span of the load.
        whole: What it has returned.
        models_in: Returns the models in it, by their names there.
    """
    if models_in(whole):
        again = _Again(whole, models_in)
        models_of(recorder).loaded(load, again(), again)
        recorder.models.append((load, again))
        releases_of(recorder).follow(load, whole)
