"""The handler around ``tie_weights``: which tensor took whose place, and what was copied."""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.record.hooks.initializers import WatchingObserver
from hftrace.record.hooks.points import Call
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.recorder import OpenSpan, clock
from hftrace.record.write_watch import TIE, Watch


class _Tying(NamedTuple):
    """A call of ``tie_weights``."""

    watched: tuple[OpenSpan, Watch]
    before: _Parameters | None
    """The parameters, where they may hold what was loaded."""


class TieObserver(WatchingObserver):
    """``tie_weights``, which a model class may override: it makes two tensors one, or copies.

    Of two that become one, only one is left: what the other held is lost, whatever was loaded into it.
    """

    by = TIE

    def begin(self, call: Call, started: int) -> Any:
        """Looks at the parameters as they are, once weights have been placed."""
        watched = super().begin(call, started)
        if watched is None:
            return None
        built = any(span.phase == "instantiate" for span in self.state.stack)
        return _Tying(watched, None if built else _Parameters(call.first()))

    def finish(self, token: Any, call: Call, result: Any) -> None:
        """Writes down which parameter stands for which now."""
        try:
            if token.before is not None:
                self._compare(token.before, _Parameters(call.first()))
        finally:
            super().finish(token.watched, call, result)

    def fail(self, token: Any, call: Call, error: BaseException) -> None:
        """Ends the span as failed."""
        super().fail(token.watched, call, error)

    def _compare(self, held: _Parameters, now: _Parameters) -> None:
        if held.same_as(now):
            return
        before, after = held.by_name(), now.by_name()
        changed = [name for name, tensor in after.items() if before.get(name) is not tensor]
        if not changed:
            return
        name_of = {id(tensor): name for name, tensor in reversed(before.items())}
        sources = {}
        for name in changed:
            source = name_of.get(id(after[name]))
            if source is not None:
                sources[name] = source
            else:
                self.recorder.writes.note(after[name], TIE, clock())
        if sources:
            self.recorder.facts("tied", {"load": self.state.stack[0].id, "sources": sources})


class _Parameters:
    """The parameters of a model at one moment; their names are made where somebody asks.

    Args:
        model: A torch module.
    """

    def __init__(self, model: Any) -> None:
        # Flat lists of what is no container: many containers made at once set Python to collect garbage.
        self._modules: list[Any] = [model]
        self._inside: list[int] = [0]
        """For each module the position of the one that it is in."""
        self._called: list[str] = [""]
        """The module's name there."""
        self._ends: list[int] = []
        """For each module where its parameters end in the lists of those."""
        self._names: list[str] = []
        self._tensors: list[Any] = []
        for at, module in enumerate(self._modules):  # which grows meanwhile
            own = module.__dict__
            parameters, children = own.get("_parameters"), own.get("_modules")
            if parameters:
                self._names += parameters
                self._tensors += parameters.values()
            self._ends.append(len(self._tensors))
            for name in children or ():
                child = children[name]
                if child is not None:
                    self._modules.append(child)
                    self._inside.append(at)
                    self._called.append(name)

    def same_as(self, other: _Parameters) -> bool:
        """Returns whether both are the same parameters in the same order."""
        return list(map(id, self._tensors)) == list(map(id, other._tensors))

    def by_name(self) -> dict[str, Any]:
        """Returns the parameters by name, each name that they have."""
        found: dict[str, Any] = {}
        prefixes: list[str] = []
        start = 0
        for parent, called, end in zip(self._inside, self._called, self._ends, strict=True):
            prefixes.append(f"{prefixes[parent]}{called}." if prefixes else "")
            for at in range(start, end):
                if self._tensors[at] is not None:
                    found[prefixes[-1] + self._names[at]] = self._tensors[at]
            start = end
        return found


tying_handler = observed_by(TieObserver)
