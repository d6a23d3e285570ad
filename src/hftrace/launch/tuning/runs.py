"""The runs of a search, and what is left of its budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrace.analysis.compare.variants import Variant
from hftrace.errors import SignalInterrupt
from hftrace.launch.ending.explanation import explain_failure
from hftrace.launch.listening import Listen, unheard
from hftrace.launch.request import LoadRequest
from hftrace.launch.variants.rounds import Round, run_rounds
from hftrace.launch.variants.specs import VariantSpec
from hftrace.schema.trace import Trace


@dataclass
class Runs:
    """Runs variants in turn, in a folder for each stage, and keeps account of the time.

    Args:
        budget_seconds: How long all of it may take.
        directory: Where the traces go.
        header: Facts for the traces' headers.
        say: Hears what is going on.
        listen: Gives who hears of a run while it goes on, by words that say which it is.
    """

    budget_seconds: float
    directory: Path
    header: Mapping[str, Any]
    say: Callable[[str], None]
    listen: Listen = unheard
    failed: dict[str, str] = field(default_factory=dict, init=False)
    """Variants that did not load, with the reason."""
    run_seconds: float = field(default=0.0, init=False)
    """What a run takes with all around it: the mean of the last stage."""
    _started: float = field(default_factory=time.monotonic, init=False)
    _ran: set[str] = field(default_factory=set, init=False)

    @property
    def spent_seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._started

    def room(self, share: float, runs: int) -> int:
        """Returns how many variants can be run so often in a share of what is left of the budget."""
        left = max(0.0, self.budget_seconds - self.spent_seconds)
        return int(left * share / self._cost(runs))

    def room_until(self, share: float, runs: int) -> int:
        """Returns how many variants can be run so often before a share of the whole budget is gone."""
        return int(max(0.0, self.budget_seconds * share - self.spent_seconds) / self._cost(runs))

    def _cost(self, runs: int) -> float:
        return max(0.1, self.run_seconds * runs)

    def measure(
        self,
        request: LoadRequest,
        stage: str,
        specs: Sequence[VariantSpec],
        repeat: int,
        *,
        warm: Collection[str] = (),
        timed: bool = True,
    ) -> tuple[Path, dict[str, Variant]]:
        """Runs variants in turn; returns where their traces are, and all runs of each in that stage.

        Args:
            request: What is common to all.
            stage: Names the folder.
            specs: The variants.
            repeat: How often each is run, after one run that is not counted of those that never ran.
            warm: Variants that need no such run.
            timed: Whether the runs are like those that the budget is for.

        Raises:
            HftraceError: Something stopped it.
            KeyboardInterrupt: Somebody did.
        """
        folder = self.directory / stage
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        count = 0

        def on_round(finished: Round, done: int, total: int) -> None:
            nonlocal count
            count += 1
            which = f"round {finished.number}" if finished.number else "warm-up"
            self.say(f"  {which}  {finished.variant}  ({done} of {total})")

        rounds = run_rounds(
            request,
            specs,
            repeat=repeat,
            directory=folder,
            header=self.header,
            on_round=on_round,
            warm={*self._ran, *warm},
            listen=self.listen,
        )
        if rounds.interrupted:
            raise SignalInterrupt(rounds.interrupted)
        if rounds.problem is not None:
            raise rounds.problem
        if count and timed:
            self.run_seconds = (time.monotonic() - began) / count
        self._ran |= {spec.name for spec in specs}
        found = {}
        for name, paths in rounds.traces.items():
            traces = [Trace.open(path) for path in paths]
            if traces:
                found[name] = Variant.of(name, traces)
            if name in rounds.failed:
                self.failed[name] = f"it did not load: {explain_failure(traces[-1])}"
        return folder, found
