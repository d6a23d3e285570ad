"""Which variants of a load make the same model: each is loaded once more, and its process takes digests."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from hftrace.analysis.compare.equality import Equality, drawn_anew, equality
from hftrace.analysis.compare.tuning import PLAIN
from hftrace.launch.ending.explanation import explain_failure
from hftrace.launch.request import LoadRequest
from hftrace.launch.tuning.runs import Runs
from hftrace.launch.tuning.settings import Setting, variant
from hftrace.schema.trace import Trace

AGAIN = "plain again"


@dataclass
class Models:
    """The models that variants make.

    Args:
        request: The call as it was given.
        allowed: What of the model may change.
        runs: Runs variants.
    """

    request: LoadRequest
    allowed: Collection[str]
    runs: Runs
    found: dict[str, Equality] = field(default_factory=dict, init=False)
    """What is known of each variant."""
    _traces: dict[str, Trace] = field(default_factory=dict, init=False)
    _anew: bool | None = field(default=None, init=False)

    def same(self, name: str, settings: Sequence[Setting]) -> Equality:
        """Says whether a variant makes the model of the plain call; looks once.

        Args:
            name: What it is called.
            settings: What it sets.
        """
        if name not in self.found:
            self.found[name] = self._compared(name, settings)
        return self.found[name]

    def _compared(self, name: str, settings: Sequence[Setting]) -> Equality:
        plain, other = self._digested(PLAIN, []), self._digested(name, settings)
        failed = next((trace for trace in (plain, other) if trace.outcome.get("status") != "ok"), None)
        if failed is not None:
            return Equality(None, f"a load did not end well: {explain_failure(failed)}")
        allowed = {each for setting in settings for each in setting.changes} & set(self.allowed)
        result = equality(plain, other, allowed, bool(self._anew))
        if not result.proven and self._anew is None and drawn_anew(plain, other):
            # Is that the setting's doing, or the call's own?
            self._anew = drawn_anew(plain, self._digested(AGAIN, []))
            result = equality(plain, other, allowed, self._anew)
        return result

    def _digested(self, name: str, settings: Sequence[Setting]) -> Trace:
        if name not in self._traces:
            self.runs.say(f"digests of the model: {name}")
            request = dataclasses.replace(
                self.request, digest=True, touch=False, forward=False, inputs=None, cache=None
            )
            # It does more than the others: it says nothing of what they take, and needs no run before it.
            _, measured = self.runs.measure(
                request,
                f"digests-{len(self._traces)}",
                [variant(name, settings)],
                1,
                warm=[name],
                timed=False,
            )
            self._traces[name] = measured[name].runs[0]
        return self._traces[name]
