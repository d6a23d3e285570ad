"""Two or more groups of runs side by side: figures with a verdict, and why they differ.

Everything works on named groups of traces, ``[(name, [trace, ...]), ...]``:
from files of any machine, or from runs that were just made. The first group
is the baseline unless another one is named.

Why one load took longer is told by phases. Medians of single phases do not
add up to the difference of the medians, so each group is represented by the
run in the middle (the mean of the two in the middle where their number is
even): its phases add up to the median, and so do the differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hftrace import units
from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.compare import tensor_diff, variants
from hftrace.analysis.compare.caveats import Caveat, caveats
from hftrace.analysis.compare.files import FileChange, file_changes
from hftrace.analysis.compare.load_words import load_words_by_span
from hftrace.analysis.compare.phase_verdicts import PhaseVerdict, phase_verdicts
from hftrace.analysis.compare.sessions import (
    SessionChange,
    part_facts,
    same_places,
    session_changes,
    session_ns,
)
from hftrace.analysis.compare.tensor_diff import TensorDiff
from hftrace.analysis.compare.variants import METRICS, RETURNED, Variant, load_phases
from hftrace.analysis.compare.verdicts import NEGLIGIBLE, Judgement, judge
from hftrace.analysis.ledger.tensors import Total, casts, tensor_sums
from hftrace.analysis.time.spans import span_index
from hftrace.errors import HftraceError, UsageError
from hftrace.schema.model import File
from hftrace.schema.trace import Trace

NOTHING = Total()


@dataclass(frozen=True)
class TensorOperation:
    """Something that loads do to tensors, and how much of it two loads did."""

    kind: str
    """``cast, initialized, converted, quantized, computed, tied, offloaded, meta, state_dict, unused`` or
    ``placed``."""
    detail: str
    """The pair of dtypes of a cast, or the device of what was placed; empty otherwise."""
    before: Total
    after: Total


class Call(NamedTuple):
    """A function of the loader that one load called and the other did not."""

    function: str
    phase: str
    calls: int
    self_ns: int
    """Time on its thread that no span below it has."""


@dataclass(frozen=True)
class PartChange:
    """A part of the peak in two loads; bytes."""

    kind: str
    memory: str
    label: str
    before_bytes: int
    after_bytes: int

    @property
    def difference_bytes(self) -> int:
        """How much more the second one has."""
        return self.after_bytes - self.before_bytes


class Difference:
    """A variant against the baseline.

    Args:
        baseline: What it is compared with.
        variant: The variant.
    """

    def __init__(self, baseline: Variant, variant: Variant) -> None:
        self.baseline = baseline
        self.variant = variant

    @cached_property
    def judgements(self) -> dict[str, Judgement]:
        """Ratio, interval and verdict of each metric, by its key."""
        before, after = self.baseline.values, self.variant.values
        return {
            metric.key: judge(before[metric.key], after[metric.key], metric.resolution) for metric in METRICS
        }

    @cached_property
    def attribution(self) -> dict[str, int]:
        """Difference of ``returned_ns`` by phase in ns, the largest first; adds up to that of the medians.

        ``unattributed`` is among them. Empty where one of the two has no time.
        """
        before, after = self.baseline.phases, self.variant.phases
        if not self.baseline.successful or not self.variant.successful:
            return {}
        differences = {
            phase: after.get(phase, 0) - before.get(phase, 0) for phase in dict.fromkeys([*before, *after])
        }
        return dict(sorted(differences.items(), key=lambda item: (-abs(item[1]), item[0])))

    @cached_property
    def phase_verdicts(self) -> dict[str, PhaseVerdict]:
        """Which phases differ for certain, each by its own time; empty where a side has no run."""
        before, after = (
            [load_phases(run) for run in side.successful] for side in (self.baseline, self.variant)
        )
        whole = self.baseline.median(RETURNED.key) or 0
        return phase_verdicts(before, after, max(NEGLIGIBLE * whole, RETURNED.resolution))

    @cached_property
    def session(self) -> list[SessionChange]:
        """Difference of the sessions by part, the largest first; adds up to that of their medians.

        Empty where the session of one of the two is not known, or is no program's.
        """
        return session_changes(self.baseline.session_parts, self.variant.session_parts)

    @cached_property
    def memory(self) -> list[PartChange]:
        """Difference of the loads' peaks by part, the largest first; adds up to that of the medians.

        Empty where one of the two has no exact peak.
        """
        before, after = self.baseline.memory_parts, self.variant.memory_parts
        if not before or not after:
            return []
        changes = []
        for key in dict.fromkeys([*before, *after]):
            first, second = before.get(key), after.get(key)
            label = first.label if first is not None else second.label if second is not None else ""
            changes.append(
                PartChange(*key, label, first.bytes if first else 0, second.bytes if second else 0)
            )
        return sorted(changes, key=lambda change: -abs(change.difference_bytes))

    @cached_property
    def operations(self) -> list[TensorOperation]:
        """What the typical runs did to tensors, as far as it is not the same."""
        before, after = _operations(self.baseline.typical), _operations(self.variant.typical)
        keys = dict.fromkeys([*before, *after])
        return [
            TensorOperation(*key, before.get(key, NOTHING), after.get(key, NOTHING))
            for key in keys
            if before.get(key, NOTHING) != after.get(key, NOTHING)
        ]

    @cached_property
    def files(self) -> list[FileChange]:
        """Files that the typical runs did not treat alike, in the order in which they were asked for."""
        return file_changes(self.baseline.typical, self.variant.typical)

    @cached_property
    def calls(self) -> tuple[list[Call], list[Call]]:
        """Functions that only the baseline called, and that only the variant called, slowest first."""
        before, after = _calls(self.baseline.typical), _calls(self.variant.typical)
        return (
            [call for name, call in before.items() if name not in after],
            [call for name, call in after.items() if name not in before],
        )

    @cached_property
    def tensors(self) -> TensorDiff:
        """What differs between the models of the typical runs."""
        before, after = self.baseline.typical, self.variant.typical
        return tensor_diff.tensor_diff(before.tensors, after.tensors, *load_words_by_span((before, after)))


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, the baseline first."""

    variants: list[Variant]
    differences: list[Difference]
    """One for each variant after the baseline."""
    caveats: list[Caveat]

    @property
    def baseline(self) -> Variant:
        """What the others are compared with."""
        return self.variants[0]


def compare(groups: Sequence[tuple[str, Sequence[Trace]]], baseline: str | None = None) -> Comparison:
    """Compares groups of traces.

    Args:
        groups: Name and traces of each group; names are distinct, and no group is empty.
        baseline: Name of the group that the others are compared with; the first by default.

    Raises:
        UsageError: There are fewer than two groups, two have one name, one is empty, or none is the baseline.
        HftraceError: No run of the baseline has a load that succeeded.
    """
    names = [name for name, _ in groups]
    if len(groups) < 2:
        raise UsageError("a comparison needs two groups of traces at least: name another trace")
    if len(set(names)) < len(names):
        raise UsageError("two groups have the same name: give each its own, as NAME=FILE")
    empty = next((name for name, traces in groups if not traces), None)
    if empty is not None:
        raise UsageError(f"group {empty} has no trace: name one at least")
    if baseline is not None and baseline not in names:
        raise UsageError(f"there is no group {baseline!r}: the groups are {', '.join(names)}")
    made = [Variant.of(name, traces) for name, traces in groups]
    if baseline is not None:
        made.sort(key=lambda variant: variant.name != baseline)
    if not made[0].successful:
        number = len(made[0].runs)
        raise HftraceError(
            f"no load of the baseline {made[0].name} succeeded ({units.count(number, 'trace')}): "
            "choose another one with --baseline"
        )
    runs = [[run for run in variant.successful if session_ns(run) is not None] for variant in made]
    for variant, places in zip(made, same_places(runs, [variant.name for variant in made]), strict=True):
        variant.places = places
    return Comparison(made, [Difference(made[0], variant) for variant in made[1:]], caveats(made))


# -- what a load did ----------------------------------------------------------------------------------


def _operations(trace: Trace) -> dict[tuple[str, str], Total]:
    """Returns what a load did to tensors: casts by pair, provenances, and where tensors are."""
    found: dict[tuple[str, str], Total] = {}

    def add(kind: str, detail: str, total: Total) -> None:
        found.setdefault((kind, detail), Total()).add(total)

    for (source, target), total in casts(tensor_sums(as_loaded(trace))).items():
        add("cast", f"{source} → {target}", total)
    for tensor_class, total in tensor_sums(trace).items():
        if tensor_class.offload is not None or tensor_class.provenance == "offloaded":
            add("offloaded", f"to {tensor_class.offload}" if tensor_class.offload else "", total)
        elif tensor_class.provenance not in (None, "checkpoint"):
            add(str(tensor_class.provenance), "", total)
        if tensor_class.device is not None and tensor_class.provenance != "tied":
            add("placed", f"on {tensor_class.device}", total)
    return found


def _calls(trace: Trace) -> dict[str, Call]:
    """Returns the functions that spans of loads name, slowest first."""
    index = span_index(trace)
    functions = trace.spans.column("function")
    found: dict[str, Call] = {}
    for row in index.walk(index.load_rows):
        name = functions[row]
        if not name:
            continue
        known = found.get(name) or Call(name, index.phases[row], 0, 0)
        found[name] = known._replace(calls=known.calls + 1, self_ns=known.self_ns + index.self_ns(row))
    return dict(sorted(found.items(), key=lambda item: (-item[1].self_ns, item[0])))


# -- facts --------------------------------------------------------------------------------------------


def facts(comparison: Comparison) -> dict[str, Any]:
    """Returns a comparison as plain JSON values: ns, bytes, and shares between 0 and 1.

    ``variants`` has every group by its name. Each metric has ``median, values, ratio, ratio_low,
    ratio_high, verdict`` against the baseline; of the baseline itself the last four are None.
    ``attribution`` is the difference of the medians of ``returned_ns`` by phase, in ns; ``phase_verdicts``
    says which phases differ for certain. ``session_attribution`` is the difference of the medians of
    ``wall_ns``, of what programs did outside of their loads by name.
    """
    result: dict[str, Any] = {
        "baseline": comparison.baseline.name,
        "caveats": [
            {"kind": each.kind, "subject": each.subject, "text": each.text, "within": each.within}
            for each in comparison.caveats
        ],
        "variants": {},
    }
    by_name = {difference.variant.name: difference for difference in comparison.differences}
    for variant in comparison.variants:
        difference = by_name.get(variant.name)
        entry: dict[str, Any] = {
            "runs": len(variant.runs),
            "efficiency": variant.efficiency,
            "runs_with_figures": len(variant.successful),
            "metrics": {
                metric.key: {
                    **variants.facts(variant, metric.key),
                    **_judgement_facts(difference.judgements[metric.key] if difference else None),
                }
                for metric in METRICS
            },
            "phases": variant.phases,
            "session": [{**part_facts(part), "ns": spent} for part, spent in variant.session_parts.items()],
            "load_peak_bytes": variant.load_peak_bytes,
        }
        if difference is not None:
            entry |= _difference_facts(difference)
        result["variants"][variant.name] = entry
    return result


def _judgement_facts(judgement: Judgement | None) -> dict[str, Any]:
    interval = judgement.interval if judgement is not None else None
    return {
        "ratio": judgement.ratio if judgement is not None else None,
        "ratio_low": interval.low if interval is not None else None,
        "ratio_high": interval.high if interval is not None else None,
        "p_value": judgement.p_value if judgement is not None else None,
        "verdict": judgement.verdict if judgement is not None else None,
        "more_runs": judgement.more_runs if judgement is not None else None,
    }


def _difference_facts(difference: Difference) -> dict[str, Any]:
    def total(each: Total) -> dict[str, int]:
        return {"count": each.count, "bytes": each.bytes, "stored_bytes": each.stored_bytes}

    def file(each: File | None) -> dict[str, Any] | None:
        if each is None:
            return None
        names = ("result", "size_bytes", "read_bytes", "downloaded_bytes", "opened")
        return {name: getattr(each, name) for name in names}

    only_before, only_after = difference.calls
    return {
        "attribution": difference.attribution,
        "phase_verdicts": {
            phase: {
                "difference_ns": found.difference_ns,
                "p_value": found.p_value,
                "verdict": found.verdict,
            }
            for phase, found in difference.phase_verdicts.items()
        },
        "session_attribution": [
            {
                **part_facts(change.part),
                "baseline_ns": change.before_ns,
                "ns": change.after_ns,
                "difference_ns": change.difference_ns,
            }
            for change in difference.session
        ],
        "memory_attribution": [
            {
                "kind": change.kind,
                "memory": change.memory,
                "label": change.label,
                "baseline_bytes": change.before_bytes,
                "bytes": change.after_bytes,
                "difference_bytes": change.difference_bytes,
            }
            for change in difference.memory
        ],
        "did": [
            {
                "kind": operation.kind,
                "detail": operation.detail,
                "baseline": total(operation.before),
                "variant": total(operation.after),
            }
            for operation in difference.operations
        ],
        "files": [
            {
                **change.key._asdict(),
                "baseline": file(change.before),
                "variant": file(change.after),
            }
            for change in difference.files
        ],
        "functions_only_baseline": [call._asdict() for call in only_before],
        "functions_only_variant": [call._asdict() for call in only_after],
        "tensors": tensor_diff.facts(difference.tensors),
    }
