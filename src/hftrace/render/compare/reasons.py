"""Why a variant differs from the baseline: a label and a sentence for each answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hftrace import units
from hftrace.analysis.compare.comparison import Difference, PartChange, TensorOperation
from hftrace.analysis.compare.files import FileChange
from hftrace.analysis.compare.tensor_diff import count_changes as counts_by_field
from hftrace.analysis.compare.variants import RETURNED, SESSION, Metric
from hftrace.analysis.compare.verdicts import BETTER, NO_DIFFERENCE, WORSE, is_negligible
from hftrace.analysis.ledger.tensors import Total
from hftrace.analysis.memory.peaks import SLACK_BYTES
from hftrace.render.compare.words import file_state
from hftrace.render.peak import PART_NAMES
from hftrace.render.session import part_words
from hftrace.units import signed_bytes, signed_duration

SHARE_WORTH_NAMING = 0.02
"""Parts of a difference below this share of the largest one are summed up."""
NAMED = 6
OPERATIONS = 8
SHORT_LIST = 4


def join_parts(parts: Sequence[tuple[str, int]], write: Callable[[int], str]) -> str:
    """Returns the parts of a difference in words; small ones as one sum, so that nothing is left out."""
    known = [(name, size) for name, size in parts if size]
    if not known:
        return "nothing"
    known.sort(key=lambda part: -abs(part[1]))
    largest = abs(known[0][1])
    named = [part for part in known if abs(part[1]) >= SHARE_WORTH_NAMING * largest][:NAMED]
    rest = known[len(named) :]
    texts = [f"{name} {write(size)}" for name, size in named]
    if rest:
        texts.append(f"{len(rest)} more {write(sum(size for _, size in rest))}")
    return ", ".join(texts)


def certain_phases(difference: Difference) -> str:
    """Returns the phases whose own time differs by more than chance, whatever the whole does."""
    found = [
        (phase, each) for phase, each in difference.phase_verdicts.items() if each.verdict in (BETTER, WORSE)
    ]
    if not found:
        return ""
    found.sort(key=lambda item: -abs(item[1].difference_ns))
    most = max(each.p_value for _, each in found)
    level = "< 0.1 %" if most < 0.001 else f"{most * 100:.1f} %"
    parts = ", ".join(f"{phase} {signed_duration(each.difference_ns)}" for phase, each in found)
    return f"{parts} (all phases judged together: p {level})"


def reasons(difference: Difference) -> list[tuple[str, str]]:
    """Returns label and text of each answer to why a variant differs from the baseline."""
    found = []
    if difference.session:
        command = difference.baseline.typical.header.get("command")
        words = [(part_words(change.part, command), change.difference_ns) for change in difference.session]
        found.append(("session", _times(difference, SESSION, words)))
    if difference.attribution:
        # Beside the time of a session, that of its loads is not "the" time.
        label = "in loads" if difference.session else "time"
        found.append((label, _times(difference, RETURNED, list(difference.attribution.items()))))
    certain = certain_phases(difference)
    if certain:
        found.append(("significant", certain))
    if difference.memory:
        whole = sum(change.difference_bytes for change in difference.memory)
        sums: dict[str, int] = {}
        for change in difference.memory:
            name = _part_name(change)
            sums[name] = sums.get(name, 0) + change.difference_bytes
        said = f"{signed_bytes(whole)}: {join_parts(list(sums.items()), signed_bytes)}"
        found.append(("load's peak", said if whole else "the same"))
    operations = [operation for operation in difference.operations if _worth_saying(operation)]
    for number, operation in enumerate(operations[:OPERATIONS]):
        found.append(("operations" if not number else "", _operation(operation)))
    if len(operations) > OPERATIONS:
        found.append(("", f"{len(operations) - OPERATIONS} more: --json"))
    if difference.files:
        found.append(("files", _describe_files(difference.files)))
    counts = counts_by_field(difference.tensors)
    if counts:
        found.append(("tensors", describe_tensors(counts, difference)))
    for label, calls in zip(
        (difference.baseline.name, difference.variant.name), difference.calls, strict=True
    ):
        if calls:
            names = ", ".join(
                f"{call.function} {units.duration(call.self_ns)}" for call in calls[:SHORT_LIST]
            )
            more = f", {len(calls) - SHORT_LIST} more" if len(calls) > SHORT_LIST else ""
            found.append(("calls", f"only {label}: {names}{more}"))
    return found


def _times(difference: Difference, metric: Metric, parts: Sequence[tuple[str, int]]) -> str:
    """Returns the difference of a time and its parts, and whether it counts at all."""
    whole = sum(size for _, size in parts)
    if not whole:
        return "the same"
    before, after = (side.median(metric.key) or 0 for side in (difference.baseline, difference.variant))
    remark = ""
    if is_negligible(before, after, metric.resolution):
        remark = " (too little to count)"
    elif difference.judgements[metric.key].verdict == NO_DIFFERENCE:
        remark = " (may be noise)"
    return f"{signed_duration(whole)}{remark}: {join_parts(parts, signed_duration)}"


def _part_name(change: PartChange) -> str:
    """Returns a part of a peak in the words of the first screen of a trace."""
    if change.kind == "sources":
        return "mapped sources" if change.memory == "file" else "sources"
    return "before the load" if change.kind == "before" else PART_NAMES.get(change.kind) or change.label


def _worth_saying(operation: TensorOperation) -> bool:
    """Leaves out that a little more was placed, or computed by the model's code: no one asks about that."""
    if operation.kind not in ("placed", "computed"):
        return True
    return not is_negligible(operation.before.bytes, operation.after.bytes, SLACK_BYTES)


def _operation(operation: TensorOperation) -> str:
    name = f"{operation.kind} {operation.detail}".strip()
    return f"{name}: {_total(operation.before)} → {_total(operation.after)}"


def _total(total: Total) -> str:
    if not total.count:
        return "none"
    size = total.bytes or total.stored_bytes
    return f"{units.count(total.count, 'tensor')} of {units.byte_count(size)}"


def _describe_files(changes: Sequence[FileChange]) -> str:
    texts = [
        f"{change.label} {file_state(change.before)} → {file_state(change.after)}"
        for change in changes[:SHORT_LIST]
    ]
    more = f"; {len(changes) - SHORT_LIST} more: --view files" if len(changes) > SHORT_LIST else ""
    return "; ".join(texts) + more


def describe_tensors(counts: dict[str, int], difference: Difference) -> str:
    """Returns how many tensors differ in what."""
    names = {
        "only_baseline": f"only in {difference.baseline.name}",
        "only_variant": f"only in {difference.variant.name}",
    }
    texts = [
        f"{count:,} {names[field]}"
        if field in names
        else f"{units.count(count, 'differs', 'differ')} in {'ties' if field == 'tied_to' else field}"
        for field, count in counts.items()
    ]
    return f"{'; '.join(texts)}; {difference.tensors.same:,} the same"
