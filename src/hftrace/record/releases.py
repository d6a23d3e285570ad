"""Models that a program lets go of: when each was gone that a load had returned.

A model goes where its last reference does, or in a garbage collection: at any
moment, on any thread, in the middle of anything. What runs then is no function
of Python's, for the reasons that stand in :mod:`hftrace.record.garbage`: the
interpreter would raise a Ctrl-C in its frame, and lose it. It reads the clock and
appends to a list, which is written down later. Only weak references to models are kept.
"""

from __future__ import annotations

import itertools
import operator
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from hftrace.record.belongings import of_recorder
from hftrace.record.recorder import Recorder


class _Model(weakref.ref[Any]):
    """A weak reference to a model, with what notes that it is gone."""

    __slots__ = ("__weakref__", "gone", "load", "name")
    gone: Callable[[], Any]
    load: int
    name: str


class Releases:
    """The models of one recording that are there still, and those that are gone.

    Args:
        recorder: Where it is written down.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._numbers = itertools.count()
        self._models: dict[int, _Model] = {}
        self._gone: list[tuple[int, int, int]] = []
        """The number of a model, the time, and the thread."""

    def follow(self, load: int, model: Any) -> None:
        """Begins to follow a model that a load has returned; one that is known already is the first load's.

        Args:
            load: The span of the load.
            model: The torch module.
        """
        self.write()
        if any(known() is model for known in self._models.values()):
            return
        number = next(self._numbers)
        followed = _Model(model, operator.methodcaller("gone"))
        followed.load, followed.name = load, type(model).__name__
        noted = zip(
            itertools.repeat(number),
            iter(time.monotonic_ns, None),
            iter(threading.get_native_id, None),
            strict=False,
        )
        followed.gone = map(self._gone.append, noted).__next__
        self._models[number] = followed

    def load_of(self, model: Any) -> int | None:
        """Returns the span of the load that has returned a model; None for one that is not followed."""
        return next((known.load for known in list(self._models.values()) if known() is model), None)

    def write(self) -> None:
        """Writes down which models have gone since."""
        count = len(self._gone)
        for number, time_ns, thread in self._gone[:count]:
            gone = self._models.pop(number, None)
            if gone is not None:
                facts = {"load": gone.load, "class": gone.name, "time_ns": time_ns, "thread": thread}
                self._recorder.facts("released", facts)
        del self._gone[:count]

    def close(self) -> None:
        """Writes down the last ones, and follows none any more."""
        self.write()
        self._models.clear()
        self._recorder.belongings.pop(Releases, None)


def releases_of(recorder: Recorder) -> Releases:
    """Returns what a recorder knows of models that go."""
    return of_recorder(recorder, Releases)
