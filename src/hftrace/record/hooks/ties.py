"""The handler around ``tie_weights``: which tensor took whose place, and what was copied."""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.record.hooks.initializers import WatchingObserver
from hftrace.record.hooks.points import Call
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.identity import modules_of
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
        self._model = model
        self._modules: list[Any] = [model]
        self._ends: list[int] = []
        """For each module where its parameters end in the lists of those."""
        self._names: list[str] = []
        self._tensors: list[Any] = []
        for module in self._modules:  # which grows meanwhile
            own = module.__dict__ if module is not None else {}
            parameters, children = own.get("_parameters"), own.get("_modules")
            if parameters:
                self._names += parameters
                self._tensors += parameters.values()
            self._ends.append(len(self._tensors))
            if children:
                self._modules += children.values()

    def same_as(self, other: _Parameters) -> bool:
        """Returns whether both are the same parameters in the same order."""
        return list(map(id, self._tensors)) == list(map(id, other._tensors))

    def by_name(self) -> dict[str, Any]:
        """Returns the parameters by name, each name that they have, where the modules are still in place."""
        prefixes: dict[int, list[str]] = {}
        for prefix, module in modules_of(self._model):
            prefixes.setdefault(id(module), []).append(prefix)
        found: dict[str, Any] = {}
        begin = 0
        for module, end in zip(self._modules, self._ends, strict=True):
            for prefix in prefixes.get(id(module), ()):
                for at in range(begin, end):
                    if self._tensors[at] is not None:
                        found[prefix + self._names[at]] = self._tensors[at]
            begin = end
        return found


tying_handler = observed_by(TieObserver)
