"""The handler around ``tie_weights``: which tensor took whose place, and what was copied."""

from __future__ import annotations

import gc
import itertools
import operator
import sys
from typing import Any, NamedTuple

from hftrace.record.hooks.initializers import WatchingObserver
from hftrace.record.hooks.parts import in_container, owner_of
from hftrace.record.hooks.points import Call
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.identity import REPLACED, Followed, modules_of
from hftrace.record.recorder import clock
from hftrace.record.second_look import models_of
from hftrace.record.thread_state import OpenSpan
from hftrace.record.write_watch import TIE, Watch

MODELING = "transformers.modeling_utils"


class _Tying(NamedTuple):
    """A call of ``tie_weights``."""

    watched: tuple[OpenSpan, Watch]
    before: _Parameters | None
    """The parameters, where they may hold what was loaded."""
    parts: list[Followed]
    """Models that were loaded before, and are put together now."""


class TieObserver(WatchingObserver):
    """``tie_weights``, which a model class may override: it makes two tensors one, or copies.

    Of two that become one, only one is left: what the other held is lost, whatever was loaded into it.
    """

    by = TIE

    def begin(self, call: Call, started: int) -> Any:
        """Looks at the parameters as they are, once weights have been placed."""
        if not self.recorder.open_loads:
            return self._outside(call, started)
        watched = super().begin(call, started)
        if watched is None:
            return None
        built = any(span.phase == "instantiate" for span in self.state.stack)
        looked_at = None if built or self._ties_nothing(call) else _Parameters(call.first())
        parts = models_of(self.recorder).touched_by(call.first()) if in_container(self.state.stack) else []
        return _Tying(watched, looked_at, parts)

    def _ties_nothing(self, call: Call) -> bool:
        """Returns whether the call will change nothing, so that no tensor must be looked at.

        In 5.x transformers' own function goes through a mapping that the model has, where it is
        told not to make it anew; of most models that is empty. An override may do anything.
        """
        own = vars(getattr(sys.modules.get(MODELING), "PreTrainedModel", object)).get("tie_weights")
        return (
            self.function is own
            and call.get("recompute_mapping", True) is False
            and getattr(call.first(), "all_tied_weights_keys", None) == {}
        )

    def _outside(self, call: Call, started: int) -> OpenSpan | None:
        """Begins a span for a call of the program's own; what it did shows in the second look."""
        model = call.first()
        if self.state.stack or not models_of(self.recorder).knows(model):
            return None
        return self.recorder.begin(
            "surgery", f"{type(model).__name__}.tie_weights", self.number, None, started
        )

    def finish(self, token: Any, call: Call, result: Any) -> None:
        """Writes down which parameter stands for which now."""
        if not isinstance(token, _Tying):
            self.recorder.end(token)
            return
        try:
            if token.before is not None:
                self._compare(token.before)
            # A bias is padded to the vocabulary: other memory, whether or not anything was added.
            models_of(self.recorder).changed(token.parts, "tie_weights", REPLACED, "", same_objects=True)
        finally:
            super().finish(token.watched, call, result)

    def fail(self, token: Any, call: Call, error: BaseException) -> None:
        """Ends the span as failed."""
        if isinstance(token, _Tying):
            super().fail(token.watched, call, error)
        else:
            self.recorder.fail(token, error)

    def _compare(self, held: _Parameters) -> None:
        if held.unchanged():
            return
        before, after = held.by_name(), _Parameters(held.model).by_name()
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
            self.recorder.facts("tied", {"load": owner_of(self.state.stack).id, "sources": sources})


class _Parameters:
    """The parameters of a model at one moment; their names are made where somebody asks.

    Python runs once for each module, and nothing but C for each parameter.

    Args:
        model: A torch module.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        modules: list[Any] = []
        parameters: list[dict[str, Any]] = []
        below: list[dict[str, Any]] = []
        pending: list[Any] = [model]
        for module in pending:  # which grows meanwhile
            own = module.__dict__ if module is not None else {}
            children = own.get("_modules")
            if isinstance(children, dict):  # a scripted module has others, and makes its tensors anew
                modules.append(module)
                parameters.append(own["_parameters"])
                below.append(children)
                if children:
                    pending += children.values()
        self._modules = modules
        self._tables = parameters + below
        """The tables of parameters of all modules, then those of modules: the host's own, and no copies."""
        # Flat lists: many containers made at once set Python to collect garbage.
        self._names = list(itertools.chain.from_iterable(parameters))
        self._counts = list(map(len, parameters))
        self._held = self._look()

    def _look(self) -> list[Any]:
        """Returns the parameters, and then the modules, that the tables hold now."""
        found = gc.get_referents(*self._tables)  # of CPython's dictionaries, the values
        if len(found) == sum(map(len, self._tables)):
            return found
        return [value for table in self._tables for value in table.values()]

    def unchanged(self) -> bool:
        """Returns whether the modules hold the same parameters and the same modules still."""
        # By identity: to compare tensors is to calculate.
        now = self._look()
        return len(now) == len(self._held) and all(map(operator.is_, now, self._held))

    def by_name(self) -> dict[str, Any]:
        """Returns the parameters by name, each name that they have, where the modules are still in place."""
        prefixes: dict[int, list[str]] = {}
        for prefix, module in modules_of(self.model):
            prefixes.setdefault(id(module), []).append(prefix)
        found: dict[str, Any] = {}
        begin = 0
        for module, count in zip(self._modules, self._counts, strict=True):
            end = begin + count
            for prefix in prefixes.get(id(module), ()):
                for at in range(begin, end):
                    if self._held[at] is not None:
                        found[prefix + self._names[at]] = self._held[at]
            begin = end
        return found


tying_handler = observed_by(TieObserver, begins_load=True)
