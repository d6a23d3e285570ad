"""Two or more groups of runs side by side: caveats, figures with verdicts, why they differ.

The baseline is the first column. As many variants stand beside it as the
screen has room for; the others follow in a table of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

from hftrace import units
from hftrace.analysis.compare.caveats import Caveat
from hftrace.analysis.compare.comparison import (
    Comparison,
    Difference,
    FileChange,
    PartChange,
    TensorOperation,
)
from hftrace.analysis.compare.tensor_diff import TensorGroup
from hftrace.analysis.compare.tensor_diff import in_words as tensors_in_words
from hftrace.analysis.compare.variants import METRICS, Metric, Variant, main_loads
from hftrace.analysis.compare.verdicts import (
    BETTER,
    NO_DIFFERENCE,
    TOO_FEW_RUNS,
    WORSE,
    Judgement,
    is_negligible,
)
from hftrace.analysis.ledger.tensors import TO, Total
from hftrace.analysis.memory.usage import SLACK_BYTES, process_memory
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.timeline import dominant, resample
from hftrace.render.peak import IN_WORDS
from hftrace.render.text import (
    BAD,
    DIM,
    GOOD,
    PHASES,
    PLAIN,
    STRONG,
    TIMES,
    WARN,
    Block,
    Line,
    clean,
    fit,
    heading,
    legend,
    notes,
    phase_letter,
    phase_style,
    shorten,
    stack,
    width_of,
    wrap,
)
from hftrace.render.views.ledgers import Column, Row, table
from hftrace.render.views.memory import FILE_BACKED, FULL, HOST_LAYERS, chart
from hftrace.render.views.timeline import axis_text, lane_line, spark
from hftrace.schema.model import File, Trace
from hftrace.units import signed_bytes, signed_duration

VIEWS = ("summary", "phases", "memory", "tensors", "files")
LABEL = 13
WORDS = {
    BETTER: "better",
    WORSE: "worse",
    NO_DIFFERENCE: "no difference",
    TOO_FEW_RUNS: "too few runs",
}
SHORT_WORDS = {**WORDS, NO_DIFFERENCE: "same", TOO_FEW_RUNS: "few"}
"""Verdicts where a column has no room; a line below the table says what they mean."""
STYLES = {BETTER: GOOD, WORSE: BAD, NO_DIFFERENCE: DIM, TOO_FEW_RUNS: WARN}
SHARE_WORTH_NAMING = 0.02
"""Parts of a difference below this share of the largest one are summed up."""
NAMED = 6
DEEDS = 8
MEMBERS = 4
"""A folded group of so few tensors a layer is followed by their names."""
LIMIT = 200
SHORT_LIST = 4


def screen(comparison: Comparison) -> Block:
    """Returns the default screen: caveats, figures with verdicts, why, and the phases as bars."""
    return stack(summary_view(comparison), Block(lambda width: _bars(comparison, width)))


def view(comparison: Comparison, name: str) -> Block:
    """Returns one view by its name, or ``all`` of them."""
    makers: dict[str, Callable[[Comparison], Block]] = {
        "summary": summary_view,
        "phases": phases_view,
        "memory": memory_view,
        "tensors": tensors_view,
        "files": files_view,
    }
    if name == "all":
        return stack(*(make(comparison) for make in makers.values()))
    return makers[name](comparison)


def next_view(comparison: Comparison, shown: str | None) -> str:
    """Returns the view that answers the next question, which is not one that was shown."""
    if shown == "ranking":
        return "summary"
    differences = comparison.differences
    worth: list[str] = []
    if any(_peaks_differ(difference) for difference in differences):
        worth.append("memory")
    if any(not difference.tensors.empty for difference in differences):
        worth.append("tensors")
    if any(difference.files for difference in differences):
        worth.append("files")
    order = [*worth, "phases", "memory", "tensors", "files", "summary"]
    seen = ("summary",) if shown is None else VIEWS if shown == "all" else (shown,)
    return next((name for name in order if name not in seen), "summary")


def _peaks_differ(difference: Difference) -> bool:
    before, after = difference.baseline.load_peak_bytes, difference.variant.load_peak_bytes
    return before is not None and after is not None and abs(after - before) > 0.05 * before


# -- the summary --------------------------------------------------------------------------------------


def summary_view(comparison: Comparison) -> Block:
    """Returns caveats, figures with verdicts, and where the differences come from."""

    def draw(width: int) -> Iterable[Line]:
        yield from _title(comparison, width)
        yield from caveat_lines(comparison.caveats, width)
        yield []
        yield from _figures(comparison, width)
        for difference in comparison.differences:
            yield []
            yield from _why(difference, width)

    return Block(draw)


def _title(comparison: Comparison, width: int) -> Iterable[Line]:
    count = units.count(len(comparison.variants), "group")
    runs = units.count(len(comparison.baseline.runs), "run")
    right = f"baseline {clean(comparison.baseline.name)}, {runs}"
    left = f"Comparison of {count}"
    right = shorten(right, max(0, width - width_of(left) - 2))
    gap = max(1, width - width_of(left) - width_of(right))
    yield [(left, STRONG), (" " * gap, PLAIN), (right, PLAIN)]
    yield [("─" * width, DIM)]


def caveat_lines(caveats: Sequence[Caveat], width: int) -> Iterable[Line]:
    """Yields what makes groups hard to compare, or that nothing does."""
    if not caveats:
        yield [("No caveats: ", GOOD), (shorten("same versions, machine, request, cache", width - 12), PLAIN)]
    for caveat in caveats:
        for number, text in enumerate(wrap(clean(caveat.text), width - 2)):
            yield [("! " if not number else "  ", WARN), (text, PLAIN)]


class _Layout(NamedTuple):
    """How figures stand beside each other."""

    base: int
    """Width of the baseline's column."""
    each: int
    """Width of a variant's column."""
    beside: int
    """How many variants there are in a table."""
    tall: bool
    """Ratio and verdict stand below the median."""
    interval: bool


def _layout(comparison: Comparison, width: int) -> _Layout:
    count = len(comparison.differences)
    base = 14
    room = width - LABEL - base
    if room >= 49 * count:
        return _Layout(base, min(60, room // count), count, False, True)
    least, interval = (27, True) if room >= 27 * count else (13, False)
    beside = max(1, min(count, room // least))
    return _Layout(base - 1, max(least, (room + 1) // beside), beside, True, interval)


def _tables(comparison: Comparison, beside: int) -> Iterable[Sequence[Difference]]:
    """Yields the variants that stand in one table."""
    for first in range(0, len(comparison.differences), beside):
        yield comparison.differences[first : first + beside]


def _names(comparison: Comparison, shown: Sequence[Difference], base: int, each: int) -> Line:
    line: Line = [(" " * LABEL, PLAIN), (fit(clean(comparison.baseline.name), base - 1) + " ", STRONG)]
    line += [(fit(shorten(clean(difference.variant.name), each - 1), each), STRONG) for difference in shown]
    return line


def known_metrics(comparison: Comparison) -> list[Metric]:
    """Returns the metrics that any group has."""
    return [
        metric for metric in METRICS if any(variant.values[metric.key] for variant in comparison.variants)
    ]


def both_known(difference: Difference, metric: Metric) -> bool:
    """Says whether both groups have a metric: a verdict on one that is missing would mislead."""
    return bool(difference.baseline.values[metric.key] and difference.variant.values[metric.key])


def _figures(comparison: Comparison, width: int) -> Iterable[Line]:
    layout = _layout(comparison, width)
    words = SHORT_WORDS if layout.tall else WORDS
    for number, shown in enumerate(_tables(comparison, layout.beside)):
        if number:
            yield []
        yield _names(comparison, shown, layout.base, layout.each)
        yield _run_counts(comparison, shown, layout)
        for metric in known_metrics(comparison):
            base = figure_of(comparison.baseline, metric)
            line: Line = [(fit(metric.label, LABEL), DIM), (fit(base, layout.base), PLAIN)]
            below: Line = [(" " * (LABEL + layout.base), PLAIN)]
            for difference in shown:
                judgement = difference.judgements[metric.key]
                median = figure_of(difference.variant, metric)
                style = STYLES[judgement.verdict]
                ratio = ratio_of(judgement, layout.interval)
                verdict = words[judgement.verdict] if both_known(difference, metric) else ""
                if layout.tall:
                    text = f"{ratio} {verdict}".strip()
                    line.append((fit(median, layout.each), PLAIN))
                    below.append((fit(text, layout.each - 1) + " ", style))
                    continue
                line.append((fit(median, 14), PLAIN))
                line.append((fit(ratio, 21), PLAIN))
                line.append((fit(verdict, layout.each - 35), style))
            yield line
            if layout.tall:
                yield below
    yield from _explanations(comparison, layout, width)


def _run_counts(comparison: Comparison, shown: Sequence[Difference], layout: _Layout) -> Line:
    line: Line = [
        (fit("runs", LABEL), DIM),
        (fit(_run_count(comparison.baseline), layout.base), DIM),
    ]
    line += [(fit(_run_count(difference.variant), layout.each), DIM) for difference in shown]
    return line


def _run_count(variant: Variant) -> str:
    good, every = len(variant.good), len(variant.runs)
    return str(every) if good == every else f"{good} of {every}"


def amount(metric: Metric, value: float | None) -> str:
    """Returns a value of a metric as people read it."""
    return units.figure(value, metric.unit)


def figure_of(variant: Variant, metric: Metric) -> str:
    """Returns median and spread: half of what lies between the smallest and the largest, as a share."""
    values = variant.values[metric.key]
    median = variant.median(metric.key)
    text = amount(metric, median)
    if median and len(values) > 1:
        text += f" ±{round((max(values) - min(values)) / 2 / abs(median) * 100)} %"
    return text


def ratio_of(judgement: Judgement, with_interval: bool) -> str:
    """Returns the ratio to the baseline and its 95 % interval, as far as they are known."""
    if judgement.ratio is None:
        return ""
    text = TIMES + units.ratio(judgement.ratio)
    if with_interval and judgement.interval is not None:
        text += f" ({units.ratio(judgement.interval.low)}{TO}{units.ratio(judgement.interval.high)})"
    return text


def _explanations(comparison: Comparison, layout: _Layout, width: int) -> Iterable[Line]:
    texts = []
    verdicts = {
        difference.judgements[metric.key].verdict
        for difference in comparison.differences
        for metric in METRICS
        if both_known(difference, metric)
    }
    texts.append("imports: before the load and inside it; load: returned without those inside")
    several = any(len(variant.good) > 1 for variant in comparison.variants)
    if several:
        intervals = "; in brackets the 95 % interval of the ratio" if layout.interval else ""
        texts.append(f"median ±half of the range; {TIMES} is the ratio to the baseline{intervals}")
    if layout.tall:
        named = [(NO_DIFFERENCE, "same: no difference was found"), (TOO_FEW_RUNS, "few: too few runs to say")]
        texts += [text for verdict, text in named if verdict in verdicts]
    advice: dict[str, list[str]] = {}
    for difference in comparison.differences:
        if text := more_runs(difference):
            advice.setdefault(text, []).append(clean(difference.variant.name))
    texts += [f"{', '.join(names)}: {text}" for text, names in advice.items()]
    yield from notes(texts, width)


def more_runs(difference: Difference) -> str:
    """Returns how many runs a verdict on the time would take; empty where there is one."""
    judgement = difference.judgements["returned_ns"]
    if judgement.more_runs is None or judgement.ratio is None:
        return ""
    more = units.count(judgement.more_runs, "more run")
    if judgement.verdict == TOO_FEW_RUNS:
        return f"{more} of each for a verdict on returned"
    return f"about {more} of each would tell whether returned differs"


# -- why ----------------------------------------------------------------------------------------------


def listed(parts: Sequence[tuple[str, int]], write: Callable[[int], str]) -> str:
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
    if difference.attribution:
        whole = sum(difference.attribution.values())
        before = difference.baseline.median("returned_ns") or 0
        after = difference.variant.median("returned_ns") or 0
        parts = list(difference.attribution.items())
        remark = ""
        if is_negligible(before, after, METRICS[0].resolution):
            remark = " (too little to count)"
        elif difference.judgements["returned_ns"].verdict == NO_DIFFERENCE:
            remark = " (may be noise)"
        found.append(
            (
                "time",
                f"{signed_duration(whole)}{remark}: {listed(parts, signed_duration)}"
                if whole
                else "the same",
            )
        )
    certain = certain_phases(difference)
    if certain:
        found.append(("surely", certain))
    if difference.memory:
        whole = sum(change.difference_bytes for change in difference.memory)
        sums: dict[str, int] = {}
        for change in difference.memory:
            name = _part_name(change)
            sums[name] = sums.get(name, 0) + change.difference_bytes
        found.append(
            (
                "load's peak",
                f"{signed_bytes(whole)}: {listed(list(sums.items()), signed_bytes)}" if whole else "the same",
            )
        )
    deeds = [deed for deed in difference.deeds if _worth_saying(deed)]
    for number, deed in enumerate(deeds[:DEEDS]):
        found.append(("did" if not number else "", _deed(deed)))
    if len(deeds) > DEEDS:
        found.append(("", f"{len(deeds) - DEEDS} more: --json"))
    if difference.files:
        found.append(("files", _files_in_words(difference.files)))
    counts = tensors_in_words(difference.tensors)
    if counts:
        found.append(("tensors", _tensors_in_words(counts, difference)))
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


def _why(difference: Difference, width: int) -> Iterable[Line]:
    name, base = clean(difference.variant.name), clean(difference.baseline.name)
    yield heading(shorten(f"Why: {name} against {base}", width - 4), width)
    found = reasons(difference)
    if not found:
        yield [("nothing to tell: there is no figure, or nothing differs", DIM)]
    for label, text in found:
        for number, part in enumerate(wrap(clean(text), width - LABEL)):
            yield [(fit(label if not number else "", LABEL), DIM), (part, PLAIN)]


def _part_name(change: PartChange) -> str:
    """Returns a part of a peak in the words of the first screen of a trace."""
    if change.kind == "sources":
        return "mapped sources" if change.memory == "file" else "sources"
    return "before the load" if change.kind == "before" else IN_WORDS.get(change.kind) or change.label


def _worth_saying(deed: TensorOperation) -> bool:
    """Leaves out that a little more was placed, or computed by the model's code: no one asks about that."""
    if deed.kind not in ("placed", "computed"):
        return True
    return not is_negligible(deed.before.bytes, deed.after.bytes, SLACK_BYTES)


def _deed(deed: TensorOperation) -> str:
    name = f"{deed.kind} {deed.detail}".strip()
    return f"{name}: {_total(deed.before)} → {_total(deed.after)}"


def _total(total: Total) -> str:
    if not total.count:
        return "none"
    size = total.bytes or total.stored_bytes
    return f"{units.count(total.count, 'tensor')} of {units.byte_count(size)}"


def _files_in_words(changes: Sequence[FileChange]) -> str:
    texts = [
        f"{change.name} {_file(change.before)} → {_file(change.after)}" for change in changes[:SHORT_LIST]
    ]
    more = f"; {len(changes) - SHORT_LIST} more: --view files" if len(changes) > SHORT_LIST else ""
    return "; ".join(texts) + more


def _file(file: File | None) -> str:
    if file is None:
        return "not asked for"
    parts = [file.result]
    if file.result not in ("missing", "error"):
        parts += [
            units.byte_count(size) for size in (file.read_bytes or file.size_bytes,) if size is not None
        ]
    return " ".join(parts)


def _tensors_in_words(counts: dict[str, int], difference: Difference) -> str:
    names = {
        "only_baseline": f"only in {difference.baseline.name}",
        "only_variant": f"only in {difference.variant.name}",
        "tied_to": "ties differ",
    }
    texts = [f"{count:,} {names.get(field) or f'differ in {field}'}" for field, count in counts.items()]
    return f"{'; '.join(texts)}; {difference.tensors.same:,} the same"


# -- phases -------------------------------------------------------------------------------------------


def phases_view(comparison: Comparison) -> Block:
    """Returns the phases of each group as bars on one axis, as figures, and functions that only one has."""

    def draw(width: int) -> Iterable[Line]:
        yield from _bars(comparison, width)
        phases = _phases_of(comparison)
        if phases:
            yield []
            yield from _side_by_side(
                comparison,
                [(phase, phase_letter(phase), phase_style(phase)) for phase in phases],
                lambda variant, phase: variant.phases.get(phase, 0) if variant.good else None,
                units.duration,
                signed_duration,
                width,
            )
        for difference in comparison.differences:
            yield from _calls(difference, width)

    return Block(draw)


def _phases_of(comparison: Comparison) -> list[str]:
    """Returns all phases, the longest in any group first."""
    longest: dict[str, int] = {}
    for variant in comparison.variants:
        for phase, spent in variant.phases.items():
            longest[phase] = max(spent, longest.get(phase, 0))
    return sorted(longest, key=lambda phase: -longest[phase])


def _bars(comparison: Comparison, width: int) -> Iterable[Line]:
    longest = max((sum(variant.phases.values()) for variant in comparison.variants), default=0)
    labels = _label_width(comparison, width)
    cells = max(8, width - labels - 12)
    if longest <= 0:
        yield heading("Phases of the load", width)
        yield [("nothing to draw: no group has a time", DIM)]
        return
    yield heading("Phases of the load", width, f"1 column = {units.duration(longest / cells)}")
    known = list(PHASES)
    used: set[str] = set()
    for variant in comparison.variants:
        stretches = []
        at = 0
        for phase in sorted(variant.phases, key=lambda name: known.index(name) if name in known else 99):
            stretches.append((at, at + variant.phases[phase], phase))
            at += variant.phases[phase]
        row = dominant(stretches, 0, longest, cells)
        used.update(phase for phase in row if phase)
        spent = units.duration(at) if variant.good else "no figure"
        yield [
            (fit(clean(variant.name), labels) + " ", DIM),
            *lane_line(row),
            (fit(spent, 11, "right"), PLAIN),
        ]
    yield [(fit("time", labels) + " ", DIM), (axis_text(longest, cells), DIM)]
    yield from legend(used, width)
    yield from notes(
        ["exclusive times in the run in the middle; imports before the load are not in it"], width
    )


def _label_width(comparison: Comparison, width: int) -> int:
    longest = max(width_of(clean(variant.name)) for variant in comparison.variants)
    return max(8, min(longest, width // 4))


Row3 = tuple[str, str, str]


def _side_by_side(
    comparison: Comparison,
    rows: Sequence[Row3],
    value: Callable[[Variant, str], int | None],
    write: Callable[[int | None], str],
    write_difference: Callable[[int], str],
    width: int,
) -> Iterable[Line]:
    """Yields a table with one row per part: its value in the baseline, then value and difference elsewhere.

    Args:
        comparison: The groups.
        rows: Key, mark and the mark's style of each part.
        value: Returns a part of a group; None where the group has none.
        write: Returns a value as text.
        write_difference: The same for a difference.
        width: Of the screen.
    """
    labels = min(max(LABEL, *(width_of(clean(key)) + 3 for key, _, _ in rows)), max(LABEL, width // 2 - 4))
    base, whole, narrow = 10, 20, 11
    count = len(comparison.differences)
    room = width - labels - base
    both = room >= whole * count or count == 1
    each = whole if both else narrow
    beside = max(1, min(count, room // each))
    both = both and room >= whole
    for number, shown in enumerate(_tables(comparison, beside)):
        if number:
            yield []
        yield [
            (" " * labels, PLAIN),
            (fit(clean(comparison.baseline.name), base - 1, "right") + " ", STRONG),
            *((fit(" " + clean(each_.variant.name), each, "right"), STRONG) for each_ in shown),
        ]
        totals = {variant.name: 0 for variant in comparison.variants}
        for key, mark, style in rows:
            before = value(comparison.baseline, key)
            totals[comparison.baseline.name] += before or 0
            line: Line = [
                (f"{mark} " if mark else "", style),
                (fit(clean(key), labels - (2 if mark else 0)), PLAIN),
                (fit(write(before), base - 1, "right") + " ", PLAIN),
            ]
            for difference in shown:
                after = value(difference.variant, key)
                totals[difference.variant.name] += after or 0
                line += _pair(before, after, write, write_difference, both, each)
            yield line
        baseline = totals[comparison.baseline.name]
        line = [
            (fit("all", labels), DIM),
            (fit(write(baseline), base - 1, "right") + " ", STRONG),
        ]
        for difference in shown:
            line += _pair(
                baseline, totals[difference.variant.name], write, write_difference, both, each, STRONG
            )
        yield line
    if not both:
        yield from notes(["variants: difference from the baseline"], width)


def _pair(
    before: int | None,
    after: int | None,
    write: Callable[[int | None], str],
    write_difference: Callable[[int], str],
    both: bool,
    width: int,
    style: str = PLAIN,
) -> Line:
    """Returns value and difference, or the difference alone."""
    change = "" if before is None or after is None else write_difference(after - before)
    shown = DIM if before == after else style
    if not both:
        return [(fit(change or units.UNKNOWN, width, "right"), shown)]
    half = width // 2
    return [(fit(write(after), half, "right"), style), (fit(change, width - half, "right"), shown)]


def _calls(difference: Difference, width: int) -> Iterable[Line]:
    for variant, calls in zip((difference.baseline, difference.variant), difference.calls, strict=True):
        if not calls:
            continue
        other = difference.variant if variant is difference.baseline else difference.baseline
        rows = [
            Row(
                (
                    clean(call.function),
                    clean(call.phase),
                    f"{call.calls:,}",
                    units.duration(call.self_ns),
                )
            )
            for call in calls[:20]
        ]
        columns = (
            Column("function", most=200),
            Column("phase", most=17),
            Column("calls", right=True, rank=1),
            Column("self", right=True),
        )
        remarks = [f"+ {len(calls) - 20} more: --json"] if len(calls) > 20 else []
        title = f"Only {clean(variant.name)} calls"
        yield []
        yield from table(shorten(title, width - 4), f"not {clean(other.name)}", columns, rows, remarks).lines(
            width
        )


# -- memory -------------------------------------------------------------------------------------------


def memory_view(comparison: Comparison) -> Block:
    """Returns memory over time of each group one above the other on one axis, and the parts of the peaks."""

    def draw(width: int) -> Iterable[Line]:
        yield from _curves(comparison, width)
        parts = _parts_of(comparison)
        if parts:
            yield []
            yield heading("What the load's peak is made of", width)
            keys = {label: key for key, label in parts.items()}
            yield from _side_by_side(
                comparison,
                [(label, "", PLAIN) for label in keys],
                lambda variant, label: _part(variant, keys[label]),
                units.byte_count,
                signed_bytes,
                width,
            )
        else:
            yield from notes(["what the peaks are made of is not known: no group has an exact peak"], width)

    return Block(draw)


def _parts_of(comparison: Comparison) -> dict[tuple[str, str], str]:
    """Returns the label of each part that any group has, the largest first."""
    sizes: dict[tuple[str, str], int] = {}
    labels: dict[tuple[str, str], str] = {}
    for variant in comparison.variants:
        for key, part in variant.memory_parts.items():
            sizes[key] = max(sizes.get(key, 0), part.bytes)
            labels.setdefault(key, part.label)
    ordered = sorted(sizes, key=lambda key: -sizes[key])
    # The same words may stand for anonymous and for file-backed memory.
    seen: dict[str, int] = {}
    for label in labels.values():
        seen[label] = seen.get(label, 0) + 1
    return {key: labels[key] if seen[labels[key]] == 1 else f"{labels[key]}, {key[1]}" for key in ordered}


def _part(variant: Variant, key: tuple[str, str]) -> int | None:
    if not variant.memory_parts:
        return None
    part = variant.memory_parts.get(key)
    return part.bytes if part is not None else 0


class _Curve(NamedTuple):
    """Memory over time of the typical run of a group, from the start of its first load."""

    variant: Variant
    start_ns: int
    end_ns: int
    points: Sequence[tuple[int, tuple[int, ...]]]
    peak_bytes: int | None


def _curve(variant: Variant) -> _Curve | None:
    trace: Trace = variant.typical
    rows = main_loads(trace)
    process = process_memory(trace)[0] if process_memory(trace) else None
    if not rows or process is None:
        return None
    start = min(span_index(trace).starts[row] for row in rows)
    end = max([span_index(trace).ends[row] for row in rows] + [right for _, right in process.busy])
    points = [
        (
            reading.time_ns,
            (reading.total_bytes, reading.anonymous_bytes, reading.file_bytes, reading.shared_bytes),
        )
        for reading in process.readings
    ]
    return _Curve(variant, start, end, points, process.peak.bytes if process.peak is not None else None)


def _curves(comparison: Comparison, width: int) -> Iterable[Line]:
    curves = [curve for curve in map(_curve, comparison.variants) if curve is not None]
    span = max((curve.end_ns - curve.start_ns for curve in curves), default=0)
    if span <= 0 or not any(curve.points for curve in curves):
        yield heading("Memory", width)
        yield [("nothing to draw: no group has readings of memory", DIM)]
        return
    labels = max(13, min(20, width // 5))
    cells = max(10, width - labels - 1)
    yield heading("Memory from the start of the load", width, f"1 column = {units.duration(span / cells)}")
    columns = []
    for curve in curves:
        whole = resample(curve.points, curve.start_ns, curve.start_ns + span, cells)
        lasts = min(cells, int((curve.end_ns - curve.start_ns) / span * cells) + 1)
        # Nothing is drawn after the end: the process was gone, or nobody looked.
        columns.append([*whole[:lasts], *([None] * (cells - lasts))])
    top = max((column[0] for row in columns for column in row if column is not None), default=0)
    if top <= 0:
        yield [("nothing to draw: no group has readings of memory", DIM)]
        return
    height = 7 if len(curves) <= 2 else 4
    for curve, row in zip(curves, columns, strict=True):
        peak = f", peak {units.byte_count(curve.peak_bytes)}" if curve.peak_bytes is not None else ""
        yield [
            (" " * (labels + 1), PLAIN),
            (shorten(clean(curve.variant.name) + peak, cells), STRONG),
        ]
        stacks = [None if column is None else column[1:] for column in row]
        yield from chart(stacks, HOST_LAYERS, top, height, labels)
        yield from _devices(curve, span, cells, labels)
    yield [(fit("time", labels) + " ", DIM), (axis_text(span, cells), DIM)]
    yield [(FULL, "cyan"), (" anonymous  ", DIM), (FILE_BACKED, "blue"), (" file-backed", DIM)]


def _devices(curve: _Curve, span: int, cells: int, labels: int) -> Iterable[Line]:
    """Yields one row for each device; each has a scale of its own."""
    process = process_memory(curve.variant.typical)[0]
    for device, points in process.devices.items():
        peak = process.device_peaks.get(device)
        values = [(reading.time_ns, reading.allocated_bytes) for reading in points]
        row = resample(values, curve.start_ns, curve.start_ns + span, cells)
        if peak:
            name = fit(f"{clean(device)} {units.byte_count(peak)}", labels)
            yield [(name + " ", DIM), (spark(row, peak), "magenta")]


# -- tensors and files --------------------------------------------------------------------------------


def tensors_view(comparison: Comparison) -> Block:
    """Returns what differs between the tensors of each variant and the baseline's, folded over layers."""

    def draw(width: int) -> Iterable[Line]:
        for number, difference in enumerate(comparison.differences):
            if number:
                yield []
            yield from _tensor_table(difference, width)

    return Block(draw)


def _tensor_table(difference: Difference, width: int) -> Iterable[Line]:
    diff = difference.tensors
    base, name = clean(difference.baseline.name), clean(difference.variant.name)
    groups = [*diff.changed, *diff.only_before, *diff.only_after]
    rows = [row for group in diff.changed[:LIMIT] for row in _tensor_rows(group, "", PLAIN)]
    rows += [
        row for group in diff.only_before[:LIMIT] for row in _tensor_rows(group, f"only in {base}", WARN)
    ]
    rows += [row for group in diff.only_after[:LIMIT] for row in _tensor_rows(group, f"only in {name}", WARN)]
    title = shorten(f"Tensors: {name} against {base}", width - 4)
    note = f"{diff.same:,} the same"
    if not rows:
        yield heading(title, width, note)
        yield [("no tensor differs in name, shape, dtype, device, provenance or tie", DIM)]
        return
    columns = (
        Column("tensor", most=200),
        Column("what", most=max(16, width // 2 - 8)),
        Column("baseline", right=True, rank=1),
        Column("variant", right=True, rank=1),
    )
    left_out = sum(max(0, len(part) - LIMIT) for part in (diff.changed, diff.only_before, diff.only_after))
    remarks = [f"+ {left_out} of {len(groups)} groups: --json"] if left_out else []
    yield from table(title, note, columns, rows, remarks).lines(width)


def _tensor_rows(group: TensorGroup, what: str, style: str) -> Iterable[Row]:
    """Yields a row for each field that changed; the first one has the name and the bytes."""
    label = clean(group.label)
    if len(group.members) > 1:
        label += f" {TIMES} {units.count(len(group.members), 'tensor')}"
    sizes = [
        units.byte_count(size) if size else units.UNKNOWN for size in (group.bytes_before, group.bytes_after)
    ]
    changes = [_change(*change) for change in group.change] or [what]
    yield Row((label, changes[0], *sizes), style)
    # Of a part of a layer, a name says more than a number.
    members = group.members if 1 < len(group.members) <= MEMBERS else []
    for member, change in zip_longest(members, changes[1:], fillvalue=""):
        yield Row((f"  {clean(member)}" if member else "", change, "", ""), DIM)


def _change(field: str, before: object, after: object) -> str:
    names = {"tied_to": "tied to ", "offload": "offloaded to ", "bytes": "bytes "}
    values = [
        TIMES.join(map(str, value)) or "scalar"
        if isinstance(value, tuple)
        else "nothing"
        if value is None
        else str(value)
        for value in (before, after)
    ]
    return clean(f"{names.get(field, '')}{values[0]} → {values[1]}")


def files_view(comparison: Comparison) -> Block:
    """Returns the files that groups did not treat alike, one column for each group."""

    def draw(width: int) -> Iterable[Line]:
        names = dict.fromkeys(
            change.name for difference in comparison.differences for change in difference.files
        )
        ledgers = [
            {file.name: file for file in reversed(list(variant.typical.files))}
            for variant in comparison.variants
        ]
        every = {name for ledger in ledgers for name in ledger}
        if not names:
            yield heading("Files", width, units.count(len(every), "file"))
            yield [("every group asked for the same files, with the same results", DIM)]
            return
        rows = [
            Row((clean(name), *(clean(_file(ledger.get(name))) for ledger in ledgers)))
            for name in list(names)[:LIMIT]
        ]
        columns = [Column("file", most=200)]
        columns += [
            Column(clean(variant.name), most=18, rank=number)
            for number, variant in enumerate(comparison.variants)
        ]
        remarks = [f"+ {len(names) - LIMIT} more: --json"] if len(names) > LIMIT else []
        if len(every) > len(names):
            remarks.append(f"{units.count(len(every) - len(names), 'file')} treated alike are left out")
        yield from table("Files that differ", f"{len(names)} of {len(every)}", columns, rows, remarks).lines(
            width
        )

    return Block(draw)
