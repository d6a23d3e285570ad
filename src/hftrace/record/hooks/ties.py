"""The handler around ``tie_weights``: which tensor took whose place, and what was copied."""

from __future__ import annotations

from typing import Any, NamedTuple

from hftrace.record.hooks.initializers import WatchingObserver
from hftrace.record.hooks.parts import in_container, owner_of
from hftrace.record.hooks.points import Call
from hftrace.record.hooks.wrappers import observed_by
from hftrace.record.identity import REPLACED, Followed
from hftrace.record.recorder import OpenSpan, clock
from hftrace.record.second_look import models_of
from hftrace.record.write_watch import TIE, Watch


class _Tying(NamedTuple):
    """A call of ``tie_weights``."""

    watched: tuple[OpenSpan, Watch]
    before: dict[str, Any] | None
    """The parameters by name, where they may hold what was loaded."""
    parts: list[Followed]
    """Models that were loaded before, and are put together now."""


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
        parts = models_of(self.recorder).touched_by(call.first()) if in_container(self.state.stack) else []
        return _Tying(watched, None if built else _parameters(call.first()), parts)

    def finish(self, token: Any, call: Call, result: Any) -> None:
        """Writes down which parameter stands for which now."""
        try:
            if token.before is not None:
                self._compare(token.before, _parameters(call.first()))
            # A bias is padded to the vocabulary: other memory, whether or not anything was added.
            models_of(self.recorder).changed(token.parts, "tie_weights", REPLACED, "", same_objects=True)
        finally:
            super().finish(token.watched, call, result)

    def fail(self, token: Any, call: Call, error: BaseException) -> None:
        """Ends the span as failed."""
        super().fail(token.watched, call, error)

    def _compare(self, before: dict[str, Any], after: dict[str, Any]) -> None:
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


def _parameters(model: Any) -> dict[str, Any]:
    """Returns a model's parameters by name, each name that it has."""
    found: dict[str, Any] = {}
    pending = [("", model)]
    while pending:
        prefix, module = pending.pop()
        for name, tensor in module._parameters.items():
            if tensor is not None:
                found[prefix + name] = tensor
        for name, child in module._modules.items():
            if child is not None:
                pending.append((f"{prefix}{name}.", child))
    return found


tying_handler = observed_by(TieObserver)
