"""The steps of a bisection: each version is loaded in turn with its neighbours, and judged by ``compare``.

Its neighbours are the last version known to be good and the first known to be bad. So each step proves anew
that of two versions, measured in turn, the later one is worse; and the last step proves the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftrace.analysis.compare.bisection import (
    BAD,
    GOOD,
    SKIPPED,
    Bisection,
    Placement,
    Search,
    Step,
    place,
)
from hftrace.analysis.compare.comparison import Comparison, compare
from hftrace.analysis.compare.variants import Metric, Variant
from hftrace.analysis.compare.verdicts import WORSE
from hftrace.errors import HftraceError, SignalInterrupt
from hftrace.launch.bisecting.places import Candidate, Source
from hftrace.launch.ending.explanation import explain_failure
from hftrace.launch.listening import Listen, unheard
from hftrace.launch.request import LoadRequest
from hftrace.launch.variants.rounds import Round, Rounds, run_rounds
from hftrace.launch.variants.specs import VariantSpec
from hftrace.schema.trace import Trace

MORE = 2
"""A version that is like neither end for certain is measured once more, this many times as often in all."""


@dataclass
class Steps:
    """Runs the steps of one bisection.

    Args:
        request: What is loaded, in every version alike.
        source: Where versions come from.
        metric: What they are told apart by; None for the status of their loads.
        repeat: Runs of each version in a step.
        directory: Where the traces go, in a folder for each step.
        header: Facts for the traces' headers.
        say: Hears what is going on.
        listen: Gives who hears of a run while it goes on, by words that say which it is.
    """

    request: LoadRequest
    source: Source
    metric: Metric | None
    repeat: int
    directory: Path
    header: Mapping[str, Any]
    say: Callable[[str], None]
    listen: Listen = unheard
    _candidates: dict[str, Candidate] = field(default_factory=dict, init=False)
    _ran: set[str] = field(default_factory=set, init=False)
    _proof: tuple[dict[str, list[Trace]], Path] | None = field(default=None, init=False)
    _number: int = field(default=0, init=False)
    _failure: tuple[Any, Any] = field(default=(None, None), init=False)

    def run(self, good: str, bad: str) -> Bisection:
        """Returns what has brought the difference between two versions.

        Raises:
            HftraceError: An end cannot be tried, or the two ends say that there is nothing to look for.
            KeyboardInterrupt: Somebody has ended it.
        """
        labels = self.source.labels(good, bad)
        good, bad = labels[0], labels[-1]
        ends = [self._prepared(label) for label in (good, bad)]
        search = Search(labels)
        self.say(f"{len(labels)} versions from {good} to {bad}, about {len(labels).bit_length()} steps")
        if self.metric is None:
            return self._by_status(labels, search, ends)
        traces, _ = self._measure(ends)
        for end in ends:
            problem = _wrong_version(end, traces[end.label][0])
            if problem is not None:
                raise HftraceError(f"{end.label} could not be tried: {problem}")
        comparison = _compared(good, bad, traces)
        if not comparison.differences[0].variant.successful:
            raise HftraceError(
                f"{bad} did not load: {explain_failure(traces[bad][0])}; to find what brought that, say "
                "--metric status"
            )
        steps = [
            self._end(GOOD, comparison.variants[0], ends[0]),
            self._end(BAD, comparison.variants[1], ends[1]),
        ]
        verdict = comparison.differences[0].judgements[self.metric.key]
        found: dict[str, Any] = {
            "metric": self.metric,
            "good": good,
            "bad": bad,
            "candidates": labels,
            "ends": comparison,
            "directory": str(self.directory),
        }
        self.say(f"{bad} against {good}: {self.metric.label} {verdict.verdict.replace('_', ' ')}")
        if verdict.verdict != WORSE:
            return Bisection(**found, steps=steps, last_good=None, suspects=[])
        while (label := search.next()) is not None:
            step = self._step(label, search)
            steps.append(step)
            search.mark(label, step.side)
            self._say_step(step, search)
        neighbours = search.last_good, search.first_bad
        # The last step that was not skipped measured both, in turn.
        both, folder = self._proof or self._measure([self._prepared(label) for label in neighbours])
        return Bisection(
            **found,
            steps=steps,
            last_good=search.last_good,
            suspects=search.suspects,
            proof=_compared(*neighbours, both),
            proof_directory=str(folder),
        )

    # -- by a figure ------------------------------------------------------------------------------------

    def _end(self, side: str, variant: Variant, candidate: Candidate) -> Step:
        assert self.metric is not None
        version = variant.typical.environment.get("transformers")
        values = {side: variant.values[self.metric.key]}
        return Step(candidate.label, side, None, version, values, subject=candidate.subject)

    def _prepared(self, label: str) -> Candidate:
        if label not in self._candidates:
            self._candidates[label] = self.source.prepare(label)
        return self._candidates[label]

    def _step(self, label: str, search: Search) -> Step:
        """Measures a version in turn with the last good and the first bad one so far."""
        assert self.metric is not None
        names = search.last_good, label, search.first_bad
        try:
            candidate = self._prepared(label)
            traces, folder = self._measure([self._prepared(name) for name in names])
        except HftraceError as error:
            return Step(label, SKIPPED, error.message)
        good, step, bad = (Variant.of(name, traces[name]) for name in names)
        facts: dict[str, Any] = {
            "transformers": step.runs[0].environment.get("transformers"),
            "subject": candidate.subject,
        }
        problem = _wrong_version(candidate, step.runs[0])
        failed = next((each for each in (step, good, bad) if len(each.successful) < len(each.runs)), None)
        if problem is None and failed is not None:
            problem = f"{failed.name} did not load: {_reason(failed.runs)}"
        if problem is not None:
            return Step(label, SKIPPED, problem, **facts)
        key = self.metric.key
        values = {GOOD: good.values[key], "step": step.values[key], BAD: bad.values[key]}
        if not all(values.values()):
            return Step(label, SKIPPED, f"its trace has no {self.metric.label}", **facts)
        placed: Placement = place(step, good, bad, self.metric)
        if placed.side is not None:
            self._proof = traces, folder
        reason = (
            None if placed.side is not None else "it is like neither end for certain: more --repeat tells"
        )
        return Step(label, placed.side or SKIPPED, reason, values=values, placement=placed, **facts)

    def _measure(self, candidates: Sequence[Candidate]) -> tuple[dict[str, list[Trace]], Path]:
        """Returns the traces of versions that took turns, by label, and where they are.

        There are more of them where the first do not tell.

        Raises:
            HftraceError: A version left no trace, or something stopped the rounds.
        """
        folder = self._folder(candidates)
        traces = self._rounds(candidates, self.repeat, folder)
        if len(candidates) == 3 and self.metric is not None:
            good, step, bad = (Variant.of(each.label, traces[each.label]) for each in candidates)
            loaded = all(len(each.successful) == len(each.runs) for each in (good, step, bad))
            if loaded and place(step, good, bad, self.metric).side is None:
                self.say(f"{step.name} is like neither end for certain: measuring it again")
                more = self._rounds(candidates, self.repeat * (MORE - 1), folder, after=self.repeat)
                traces = {label: [*those, *more.get(label, ())] for label, those in traces.items()}
        return traces, folder

    def _rounds(
        self, candidates: Sequence[Candidate], repeat: int, folder: Path, after: int = 0
    ) -> dict[str, list[Trace]]:
        specs = [VariantSpec(each.label, {}, each.environment, each.python) for each in candidates]

        def on_round(finished: Round, done: int, total: int) -> None:
            which = f"round {finished.number}" if finished.number else "warm-up"
            self.say(f"  {which}  {finished.variant}  ({done} of {total})")

        rounds = run_rounds(
            self.request,
            specs,
            repeat=repeat,
            directory=folder,
            header=self.header,
            on_round=on_round,
            warm=self._ran,
            after=after,
            listen=self.listen,
        )
        self._ran |= {candidate.label for candidate in candidates}
        _stop(rounds, self.directory)
        return {label: [Trace.open(path) for path in paths] for label, paths in rounds.traces.items()}

    def _folder(self, candidates: Sequence[Candidate]) -> Path:
        # One of an end and a version is named after what is new in it.
        label = candidates[len(candidates) // 2].label if len(candidates) == 3 else "ends"
        folder = self.directory / f"{self._number:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', label)}"
        self._number += 1
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _say_step(self, step: Step, search: Search) -> None:
        reason = f" ({step.reason})" if step.reason else ""
        left = f"; {search.left} left" if search.left else ""
        self.say(f"{step.label} is {step.side}{reason}{left}")

    # -- by the status ----------------------------------------------------------------------------------

    def _by_status(self, labels: list[str], search: Search, ends: Sequence[Candidate]) -> Bisection:
        good, bad = (self._loaded(candidate) for candidate in ends)
        if good.side != GOOD:
            raise HftraceError(f"the good version {good.label} did not load: {good.reason}")
        steps = [good, bad]
        nothing = bad.side == GOOD
        failure = self._failure
        while not nothing and (label := search.next()) is not None:
            try:
                step = self._loaded(self._prepared(label))
                if step.side == BAD and self._failure != failure:
                    # Another failure hides whether this one would have come.
                    step = Step(label, SKIPPED, f"it fails otherwise: {step.reason}", step.transformers)
            except HftraceError as error:
                step = Step(label, SKIPPED, error.message)
            steps.append(step)
            search.mark(label, step.side)
            self._say_step(step, search)
        return Bisection(
            metric=None,
            good=good.label,
            bad=bad.label,
            candidates=labels,
            steps=steps,
            last_good=None if nothing else search.last_good,
            suspects=[] if nothing else search.suspects,
            directory=str(self.directory),
        )

    def _loaded(self, candidate: Candidate) -> Step:
        """Loads once; returns how that ended."""
        self._ran.add(candidate.label)  # nothing is measured: nothing has to be warm
        traces = self._rounds([candidate], 1, self._folder([candidate] * 3))
        (trace,) = traces[candidate.label][:1]
        version = trace.environment.get("transformers")
        subject = candidate.subject
        problem = _wrong_version(candidate, trace)
        if problem is not None:
            return Step(candidate.label, SKIPPED, problem, version, subject=subject)
        status = trace.outcome.get("status")
        if status == "ok":
            return Step(candidate.label, GOOD, None, version, subject=subject)
        error = trace.outcome.get("error")
        self._failure = status, error.get("type") if isinstance(error, Mapping) else None
        return Step(candidate.label, BAD, explain_failure(trace), version, subject=subject)


def _compared(good: str, bad: str, traces: Mapping[str, Sequence[Trace]]) -> Comparison:
    """Returns a version against a better one.

    Raises:
        HftraceError: No load with the better one has succeeded, so there is nothing to compare with.
    """
    if not Variant.of(good, traces[good]).successful:
        raise HftraceError(
            f"the good version {good} did not load: {_reason(traces[good])}; name another one with --good"
        )
    return compare([(label, traces[label]) for label in (good, bad)])


def _wrong_version(candidate: Candidate, trace: Trace) -> str | None:
    loaded = trace.environment.get("transformers")
    if candidate.expected is None or loaded is None or loaded == candidate.expected:
        return None
    return f"its process imported transformers {loaded}"


def _reason(traces: Sequence[Trace]) -> str:
    failed = next((trace for trace in traces if trace.outcome.get("status") != "ok"), traces[0])
    return explain_failure(failed)


def _stop(rounds: Rounds, directory: Path) -> None:
    """Ends the bisection where the rounds were ended.

    Raises:
        HftraceError: By a problem.
        KeyboardInterrupt: By somebody.
    """
    if rounds.interrupted:
        raise SignalInterrupt(rounds.interrupted)
    if rounds.problem is not None:
        raise rounds.problem
