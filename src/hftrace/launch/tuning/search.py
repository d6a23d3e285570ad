"""The search for the best call: settings one at a time, then together, then together without one.

Each stage runs variants in turn and judges them as ``compare`` does. What a setting changes of the model is
found out by digests before it is in any answer. The budget is kept by doing less: fewer settings, then no
leaving out, then no combination; what was left undone is said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison, compare
from hftrace.analysis.compare.tuning import PLAIN, Call, Tried, Tuning
from hftrace.analysis.compare.variants import Metric, Variant
from hftrace.analysis.compare.verdicts import BETTER, NO_DIFFERENCE, WORSE, Judgement, judge
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.loader import loader_facts
from hftrace.errors import EXIT_THRESHOLD, HftraceError
from hftrace.launch.request import LoadRequest
from hftrace.launch.tuning.models import Models
from hftrace.launch.tuning.runs import Runs
from hftrace.launch.tuning.settings import (
    TABLE,
    Setting,
    conflict,
    distinct,
    from_findings,
    situation_of,
    variant,
)
from hftrace.launch.variants.rounds import varied
from hftrace.launch.variants.specs import DTYPE_KEYWORDS, VariantSpec
from hftrace.schema.redact import redact, redact_value
from hftrace.schema.trace import Trace

RUNS = 5
"""Of each variant that gets a verdict: fewer give none."""
LOOKS = 2
"""Runs of each in the first look: what looks no better in either goes no further."""
MAX_SURVIVORS = 5
"""Settings that are measured in full, at most: each costs as much as a verdict does."""
LOOK_SHARE = 0.4
"""How much of the budget may be gone when no further setting gets a first look."""
ALONE_SHARE = 0.55
"""How much of what is left then may go into settings alone; the rest is for what they do together."""
BATCH = 4
"""Settings of one first look: after it, what a run takes is known better."""
SLOWEST = 4
"""A run that takes this many times as long as the plain one is ended: it is no better."""
LEAST_TIMEOUT_SECONDS = 60.0
COMBINED = "combined"


@dataclass
class Tuner:
    """One search.

    Args:
        request: The call as it was given.
        metric: What is to be low.
        objective: ``time`` or ``memory``.
        allowed: What of the model may change.
        max_peak_bytes: No call may take more anonymous memory; None for no limit.
        runs: Runs variants, within the budget.
        models: Says which variants make the same model.
    """

    request: LoadRequest
    metric: Metric
    objective: str
    allowed: Collection[str]
    max_peak_bytes: int | None
    runs: Runs
    models: Models
    _tried: dict[str, Tried] = field(default_factory=dict, init=False)
    _settings: dict[str, Setting] = field(default_factory=dict, init=False)
    _notes: list[str] = field(default_factory=list, init=False)
    _settings_of: dict[str, list[str]] = field(default_factory=dict, init=False)

    def run(self) -> Tuning:
        """Returns the best call that was found.

        Raises:
            HftraceError: The plain call does not load, or the budget is too small to measure anything.
            KeyboardInterrupt: Somebody has ended it.
        """
        first = self._first()
        stages: list[tuple[Path, dict[str, Variant]]] = []
        alone = self._alone(self._look(self._candidates(first)))
        if alone is not None:
            stages.append(alone)
            together = self._together(*alone)
            if together is not None:
                stages.append(together)
        return self._answer(first, stages)

    # -- the stages --------------------------------------------------------------------------------------

    def _first(self) -> Trace:
        """Loads by the plain call, which tells what can be set at all, and what a run takes."""
        self.runs.say("the plain call, once")
        _, found = self._measure("first", [VariantSpec(PLAIN)], 1, warm=[PLAIN])
        trace = found[PLAIN].runs[0]
        if PLAIN in self.runs.failed:
            raise HftraceError(f"the call as it is does not load: {self.runs.failed[PLAIN]}")
        seconds = max(LEAST_TIMEOUT_SECONDS, SLOWEST * self.runs.run_seconds)
        watch = self.request.watch
        limit = min(filter(None, (watch.timeout_seconds, seconds)))
        self.request = dataclasses.replace(
            self.request, watch=dataclasses.replace(watch, timeout_seconds=limit)
        )
        return trace

    def _candidates(self, first: Trace) -> list[str]:
        """Returns the names of the settings to try; those that are not allowed are noted."""
        situation = situation_of(first, self.request.load)
        keyword = loader_facts(first).dtype_keyword or "dtype"
        found = from_findings(findings(first))
        # A setting of the table knows for which versions it is; a finding's names the rule.
        every = distinct([*found, *TABLE])
        chosen = []
        for setting in every:
            if not setting.fits(situation, self.objective):
                continue
            shown = {keyword if key in DTYPE_KEYWORDS else key: v for key, v in setting.keywords.items()}
            tried = Tried(
                setting.name,
                shown,
                setting.environment,
                setting.without,
                setting.collector,
                setting.changes,
                setting.origin,
            )
            self._tried[setting.name], self._settings[setting.name] = tried, setting
            forbidden = setting.changes - set(self.allowed)
            if forbidden:
                words = ",".join(sorted(forbidden))
                tried.reason = f"it changes what the model computes ({words}): --allow {words}"
            else:
                chosen.append(setting.name)
        return chosen

    def _look(self, names: list[str]) -> list[str]:
        """Runs each setting twice, a few settings at a time; returns those that may be better, best first.

        These runs choose what is measured, so they are no part of any verdict.
        """
        good: list[tuple[float, str]] = []
        number = 0
        while names:
            room = min(BATCH, self.runs.room_until(LOOK_SHARE, LOOKS) - 1)
            if room < 1:
                if not number:
                    self._refuse_budget()
                self._drop(names, "the budget left no room to try it")
                break
            batch, names = names[:room], names[room:]
            number += 1
            self.runs.say(f"a first look at {', '.join(batch)}")
            # No run before them: the better one counts, which is rarely the first.
            _, found = self._measure(f"look-{number}", self._specs(batch), LOOKS, warm=batch)
            good += self._looked(batch, found)
        best = [name for _, name in sorted(good)]
        self._drop(best[MAX_SURVIVORS:], "others looked better in the first look")
        return best[:MAX_SURVIVORS]

    def _looked(self, batch: Sequence[str], found: Mapping[str, Variant]) -> Iterator[tuple[float, str]]:
        """Yields those of a batch that may be better, with their share of the plain call's figure."""
        key = self.metric.key
        plain = found[PLAIN].median(key)
        for name in batch:
            tried, made = self._tried[name], found.get(name)
            if name in self.runs.failed or made is None:
                tried.reason = self.runs.failed.get(name) or "it left no trace"
                continue
            tried.peak_bytes = _peak(made)
            median = made.median(key)
            if median is None or not plain:
                tried.reason = f"its traces have no {self.metric.label}"
            # With two runs each, noise hides much: what was better once may be.
            elif min(made.values[key]) < plain or (self._over(found[PLAIN]) and not self._over(made)):
                yield median / plain, name
            else:
                tried.reason = "no better in the first look"
                tried.alone = self._judged(found, PLAIN, name)

    def _refuse_budget(self) -> NoReturn:
        one, all_of_it = (
            units.duration(seconds * 1e9) for seconds in (self.runs.run_seconds, self.runs.budget_seconds)
        )
        raise HftraceError(
            f"the budget is too small: one run takes {one}, and {all_of_it} leave no room for another call",
            EXIT_THRESHOLD,
        )

    def _alone(self, names: list[str]) -> tuple[Path, dict[str, Variant]] | None:
        """Proves which settings leave the model as it is, and measures those in full."""
        # One setting is worth all that is left: without it there is no answer.
        room = max(self.runs.room(ALONE_SHARE, RUNS) - 1, min(1, self.runs.room(1.0, RUNS) - 1), 0)
        self._drop(names[room:], "the budget left no room to measure it in full")
        # What costs a run each is done for those alone that may be in the answer.
        names = [name for name in names[:room] if self._same_model(name, [name])]
        if not names:
            return None
        self.runs.say(f"in full: {', '.join(names)}")
        folder, found = self._measure("alone", self._specs(names), RUNS)
        for name in names:
            if name in self.runs.failed:
                self._tried[name].reason = self.runs.failed[name]
                continue
            tried = self._tried[name]
            tried.alone = self._judged(found, PLAIN, name)
            tried.peak_bytes = _peak(found[name])
            if tried.alone.verdict == WORSE:
                tried.reason = "it is worse"
            elif tried.alone.verdict != BETTER:
                tried.reason = "no better than noise"
        return folder, {name: made for name, made in found.items() if name not in self.runs.failed}

    def _together(self, folder: Path, found: dict[str, Variant]) -> tuple[Path, dict[str, Variant]] | None:
        """Measures the settings that are better all at once, and all but one."""
        better = [
            name
            for name in found
            if name != PLAIN and (judged := self._tried[name].alone) is not None and judged.verdict == BETTER
        ]
        better.sort(key=lambda name: found[name].median(self.metric.key) or 0)
        chosen: list[str] = []
        for name in better:
            rival = next((one for one in chosen if conflict(self._settings[one], self._settings[name])), None)
            if rival is None:
                chosen.append(name)
            else:
                self._tried[name].reason = f"{rival} does more, and both cannot be had"
        if len(chosen) < 2:
            return None
        self._settings_of = {COMBINED: list(chosen)}
        specs = [VariantSpec(PLAIN), self._spec(COMBINED, chosen)]
        less = {f"without {name}": [one for one in chosen if one != name] for name in chosen}
        if len(chosen) == 2:
            # Without one of two is the other one alone.
            less = {name: [name] for name in chosen}
        whole = [*specs, *(self._spec(name, parts) for name, parts in less.items())]
        if self.runs.room(1.0, RUNS + 1) >= len(whole) + 1:
            specs = whole
            self._settings_of |= less
        elif self.runs.room(1.0, RUNS + 1) >= len(specs) + 1:
            self._notes.append("the budget left no room to leave out one setting at a time")
        else:
            self._notes.append("the budget left no room to measure the settings together")
            return None
        if not self._same_model(COMBINED, chosen):
            how = self.models.found[COMBINED].how
            self._notes.append(f"together the settings are not proven to make the same model: {how}")
            return None
        self.runs.say(f"{' and '.join(chosen)} together")
        folder, measured = self._measure(COMBINED, specs, RUNS)
        measured = {name: made for name, made in measured.items() if name not in self.runs.failed}
        if not {PLAIN, COMBINED} <= measured.keys():
            self._notes.append(
                f"the settings together did not load: {self.runs.failed.get(COMBINED, 'no trace')}"
            )
            return None
        for name in chosen:
            without = f"without {name}" if len(chosen) > 2 else next(one for one in chosen if one != name)
            if without in measured:
                self._tried[name].left_out = self._judged(measured, COMBINED, without)
        return folder, measured

    # -- the answer --------------------------------------------------------------------------------------

    def _answer(self, first: Trace, stages: Sequence[tuple[Path, dict[str, Variant]]]) -> Tuning:
        name, folder, found = PLAIN, None, {PLAIN: Variant.of(PLAIN, [first])}
        for at, measured in reversed(stages):
            best = self._best(measured)
            if best != PLAIN:
                name, folder, found = best, at, measured
                break
        plain = found[PLAIN]
        best_call: Call | None = self._call(first, self._parts(name))
        proof: Comparison | None = None
        if name != PLAIN:
            proof = compare([(PLAIN, plain.runs), (name, found[name].runs)])
        elif self._over(plain):
            best_call = None
        settings = self._parts(name)
        for tried in self._tried.values():
            if tried.name in settings:
                tried.reason = None
            elif tried.reason is None:
                tried.reason = "the answer is no worse without it"
        return Tuning(
            metric=self.metric,
            objective=self.objective,
            plain=self._call(first, []),
            best=best_call,
            settings=settings,
            tried=list(self._tried.values()),
            proof=proof,
            equal=self.models.found.get(name),
            max_peak_bytes=self.max_peak_bytes,
            plain_peak_bytes=_peak(plain),
            best_peak_bytes=_peak(found[name]) if best_call is not None else None,
            budget_seconds=self.runs.budget_seconds,
            spent_seconds=self.runs.spent_seconds,
            notes=self._notes,
            directory=str(self.runs.directory),
            proof_directory=str(folder) if folder is not None else None,
        )

    def _best(self, found: dict[str, Variant]) -> str:
        """Returns the best variant of a stage that keeps to the limit: plain where none is better."""
        needed = self._over(found[PLAIN])
        known = [
            (made.median(self.metric.key) or 0, len(self._parts(name)), name)
            for name, made in found.items()
            if name != PLAIN
            and not self._over(made)
            and made.values[self.metric.key]
            and (needed or self._judged(found, PLAIN, name).verdict == BETTER)
        ]
        while known:
            _, _, best = min(known)
            # Of those that are no worse than the best for certain, the one with the fewest settings.
            fewest = [
                (parts, median, name)
                for median, parts, name in known
                if name == best or self._judged(found, best, name).verdict in (NO_DIFFERENCE, BETTER)
            ]
            chosen = min(fewest)[2]
            if self._same_model(chosen, self._parts(chosen)):
                return chosen
            known = [row for row in known if row[2] != chosen]
        return PLAIN

    def _parts(self, name: str) -> list[str]:
        if name == PLAIN:
            return []
        return self._settings_of.get(name, [name])

    def _call(self, first: Trace, names: Sequence[str]) -> Call:
        load = self.request.load
        spec = self._spec("call", names)
        keyword = loader_facts(first).dtype_keyword or "torch_dtype"
        keywords = {
            keyword if key in DTYPE_KEYWORDS else key: value
            for key, value in varied(load, spec, "offload").keywords.items()
        }
        owner = load.class_name or first.request.get("class") or "AutoModel"
        return Call(
            redact(load.model),
            str(owner),
            redact_value(keywords),
            {**self.request.environment, **spec.environment},
            spec.collector or self.request.collector,
        )

    def _same_model(self, name: str, parts: Sequence[str]) -> bool:
        """Says whether a variant is proven to make the model that the plain call makes."""
        found = self.models.same(name, [self._settings[part] for part in parts])
        if name in self._tried:
            self._tried[name].equal = found
            if not found.proven:
                self._tried[name].reason = f"not proven to make the same model: {found.how}"
        return bool(found.proven)

    # -- runs --------------------------------------------------------------------------------------------

    def _spec(self, name: str, parts: Sequence[str]) -> VariantSpec:
        return variant(name, [self._settings[part] for part in parts])

    def _specs(self, names: Sequence[str]) -> list[VariantSpec]:
        return [VariantSpec(PLAIN), *(self._spec(name, [name]) for name in names)]

    def _measure(
        self, stage: str, specs: Sequence[VariantSpec], repeat: int, warm: Collection[str] = ()
    ) -> tuple[Path, dict[str, Variant]]:
        return self.runs.measure(self.request, stage, specs, repeat, warm=warm)

    def _judged(self, found: Mapping[str, Variant], base: str, name: str) -> Judgement:
        before, after = (found[each].values[self.metric.key] for each in (base, name))
        return judge(before, after, self.metric.resolution)

    def _over(self, made: Variant) -> bool:
        peak = _peak(made)
        return self.max_peak_bytes is not None and peak is not None and peak > self.max_peak_bytes

    def _drop(self, names: Sequence[str], reason: str) -> None:
        for name in names:
            self._tried[name].reason = reason


def _peak(made: Variant) -> int | None:
    return max(made.values["rss_anon_peak_bytes"], default=None)
