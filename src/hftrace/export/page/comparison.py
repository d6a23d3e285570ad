"""The page of several traces: what differs, by how much, and why; in the words of ``hftrace compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison, Difference, compare
from hftrace.analysis.compare.files import file_ledgers, treated
from hftrace.analysis.compare.variants import Variant
from hftrace.analysis.compare.verdicts import BETTER, WORSE
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.timeline import timeline
from hftrace.export.page.document import canvas_section, document
from hftrace.export.page.head import stacked, swatch
from hftrace.export.page.lanes import timeline_data
from hftrace.export.page.markup import Content, Markup, remarks, section, table, tag
from hftrace.render.compare.memory import part_of, parts_of
from hftrace.render.compare.phases import phases_of
from hftrace.render.compare.reasons import reasons
from hftrace.render.compare.tensors import tensor_rows
from hftrace.render.compare.words import (
    WORDS,
    both_known,
    figure_of,
    file_state,
    known_metrics,
    more_runs,
    ratio_of,
)
from hftrace.schema.trace import Trace

MOST = 300
"""Rows of a table of differences."""
SUFFIXES = (".json.gz", ".json")
TIMELINE = "each session above the other; the axis counts from the start of the first load"


def page(traces: Sequence[Trace], paths: Sequence[str], groups: Sequence[tuple[str, int]] = ()) -> str:
    """Returns the page that compares traces, or groups of runs, the first of which is the baseline.

    Args:
        traces: At least two.
        paths: Where they lie: each goes by the name of its file.
        groups: Name of each group, and how many of the traces it has, in order. Without any a trace is a
            group by itself, but for traces of a comparison, which say themselves whose runs they are.

    Raises:
        UsageError: There is one group only.
        HftraceError: No load of the baseline succeeded, so that there is nothing to compare with.
    """
    comparison = compare(_grouped(traces, groups) or by_header(traces) or _alone(traces, paths))
    names = [variant.name for variant in comparison.variants]
    sections = [
        ("summary", "", _header(comparison)),
        ("figures", "Figures", _figures(comparison)),
        ("why", "Why", _why(comparison)),
        ("phases", "Phases", _phases(comparison)),
        ("timeline", "Timeline", canvas_section("timeline", "Timeline", TIMELINE)),
        ("peaks", "Peaks", _peaks(comparison)),
        ("tensors", "Tensors", _tensors(comparison)),
        ("files", "Files", _files(comparison)),
    ]
    title = f"Comparison of {', '.join(names[:4])}{' and more' if len(names) > 4 else ''} · hftrace"
    footer = (
        "All times are wall times; 1 GB is 10⁹ bytes. Made by hftrace. A page of one trace has its calls."
    )
    shown = [_run_name(variant) for variant in comparison.variants]
    data = comparison_data(shown, [variant.typical for variant in comparison.variants])
    return document(title, sections, data, footer)


Group = tuple[str, list[Trace]]


def _grouped(traces: Sequence[Trace], groups: Sequence[tuple[str, int]]) -> list[Group]:
    found: list[Group] = []
    at = 0
    for name, count in groups:
        found.append((name, list(traces[at : at + count])))
        at += count
    return found


def _alone(traces: Sequence[Trace], paths: Sequence[str]) -> list[Group]:
    names = names_of(paths, len(traces))
    return [(name, [trace]) for name, trace in zip(names, traces, strict=True)]


def by_header(traces: Sequence[Trace]) -> list[Group]:
    """Returns the groups that traces of one comparison are of; nothing where one of them is of none.

    Nothing either where there is one group alone: then runs of one variant are compared with each other.
    """
    found: dict[str, list[Trace]] = {}
    for trace in traces:
        variant = trace.header.get("variant")
        name = variant.get("name") if isinstance(variant, Mapping) else None
        if not isinstance(name, str) or not name:
            return []
        found.setdefault(name, []).append(trace)
    return list(found.items()) if len(found) > 1 else []


def _run_name(variant: Variant) -> str:
    """Returns the name of a timeline: that of the run, where it stands for several."""
    count = len(variant.runs)
    return variant.name if count == 1 else f"{variant.name}, one of {count:,} runs"


def names_of(paths: Sequence[str], count: int) -> list[str]:
    """Returns a name for each trace: that of its file, with a number where that is taken."""
    found: list[str] = []
    for at in range(count):
        name = PurePath(paths[at]).name if at < len(paths) else ""
        name = next((name.removesuffix(each) for each in SUFFIXES if name.endswith(each)), name)
        name = name or f"trace {at + 1}"
        number, free = 2, name
        while free in found:
            free, number = f"{name} {number}", number + 1
        found.append(free)
    return found


def comparison_data(names: Sequence[str], traces: Sequence[Trace]) -> dict[str, Any]:
    """Returns what the script draws: the sessions, moved so that their first loads begin at one time."""
    before = [_before_load(trace) for trace in traces]
    return {
        "timelines": [
            timeline_data(trace, name, shift=max(before) - own)
            for name, trace, own in zip(names, traces, before, strict=True)
        ]
    }


def _before_load(trace: Trace) -> int:
    index = span_index(trace)
    start = timeline(trace).start_ns
    return max(0, min((index.starts[row] for row in index.load_rows), default=start) - start)


# -- parts ---------------------------------------------------------------------------------------------


def _header(comparison: Comparison) -> Markup:
    counts = {len(variant.runs) for variant in comparison.variants}
    baseline = f"baseline {comparison.baseline.name}"
    if counts != {1}:
        runs = (f"{variant.name} {units.count(len(variant.runs), 'run')}" for variant in comparison.variants)
        baseline = f"{', '.join(runs)}; {baseline}"
    heading = tag(
        "h1",
        f"Comparison of {len(comparison.variants)} {'traces' if counts == {1} else 'groups of runs'}",
        tag("span", baseline, class_="source"),
    )
    if comparison.caveats:
        said: Content = tag(
            "div",
            tag("h3", "Caveats"),
            tag("ul", [tag("li", caveat.text) for caveat in comparison.caveats]),
            class_="caveats",
        )
    else:
        said = tag("p", "No caveats: same versions, machine, request, cache", class_="good")
    return tag("header", heading, said, id="summary")


def _figures(comparison: Comparison) -> Markup:
    rows: list[list[Content]] = []
    if any(len(variant.runs) > 1 for variant in comparison.variants):
        counts: list[Content] = ["runs", _run_count(comparison.baseline)]
        for difference in comparison.differences:
            counts += [_run_count(difference.variant), "", ""]
        rows.append(counts)
    for metric in known_metrics(comparison):
        row: list[Content] = [metric.label, figure_of(comparison.baseline, metric)]
        for difference in comparison.differences:
            judgement = difference.judgements[metric.key]
            verdict = WORDS[judgement.verdict] if both_known(difference, metric) else ""
            tone = {BETTER: "good", WORSE: "bad"}.get(judgement.verdict, "quiet")
            row += [figure_of(difference.variant, metric), ratio_of(judgement, True)]
            row.append(tag("span", verdict, class_=tone))
        rows.append(row)
    titles = ["", comparison.baseline.name]
    right = [False, True]
    for difference in comparison.differences:
        titles += [difference.variant.name, "ratio", ""]
        right += [True, True, False]
    said = [
        *_what_a_figure_is(comparison),
        "imports: before the load and inside it; load: returned without those inside",
        *{text: None for each in comparison.differences if (text := more_runs(each))},
    ]
    return section(
        "figures", "Figures", table(titles, rows, right, caption="Figures of each trace"), remarks(said)
    )


def _run_count(variant: Variant) -> str:
    """Returns how many runs have figures, and of how many where some failed."""
    have, count = len(variant.successful), len(variant.runs)
    return f"{have:,}" if have == count else f"{have:,} of {count:,}"


def _what_a_figure_is(comparison: Comparison) -> list[str]:
    """Returns what the figures of groups are, and which runs have none."""
    if all(len(variant.runs) == 1 for variant in comparison.variants):
        return []
    said = [
        "figures are medians of runs; ± is half of what lies between the smallest and the largest",
        "phases, peaks, timelines, tensors and files are those of the run in the middle",
    ]
    failed = ((each.name, len(each.runs) - len(each.successful)) for each in comparison.variants)
    return said + [f"{name}: in no figure {units.count(n, 'run')} that failed" for name, n in failed if n]


def _why(comparison: Comparison) -> Markup | None:
    parts = []
    for difference in comparison.differences:
        if not difference.variant.successful:
            continue
        found = reasons(difference) or [("", "nothing to tell: there is no figure, or nothing differs")]
        entries = [(tag("dt", label), tag("dd", said)) for label, said in found]
        name = f"{difference.variant.name} against {difference.baseline.name}"
        parts.append(tag("div", tag("h3", name), tag("dl", entries, class_="facts")))
    return section("why", "Why", tag("div", parts, class_="columns")) if parts else None


def _phases(comparison: Comparison) -> Markup | None:
    phases = phases_of(comparison)
    longest = max((sum(variant.phases.values()) for variant in comparison.variants), default=0)
    if not phases or longest <= 0:
        return None
    bars = []
    for variant in comparison.variants:
        amounts = [(phase, variant.phases[phase]) for phase in phases if variant.phases.get(phase)]
        total = units.duration(sum(variant.phases.values())) if variant.successful else "no time"
        label = f"Time of {variant.name} by phase"
        bars += [
            tag("dt", variant.name),
            tag("dd", stacked(amounts, label, whole=longest) if amounts else None),
            tag("dd", total, class_="n"),
        ]
    rows: list[list[Content]] = []
    for phase in phases:
        row: list[Content] = [[swatch(phase), phase]]
        row.append(units.duration(comparison.baseline.phases.get(phase, 0)))
        for difference in comparison.differences:
            row += _against(difference, difference.variant.phases.get(phase, 0), phase)
        rows.append(row)
    titles = ["phase", comparison.baseline.name]
    for difference in comparison.differences:
        titles += [difference.variant.name, "difference"]
    return section(
        "phases",
        "Phases of the load",
        tag("dl", bars, class_="bars"),
        table(titles, rows, [False] + [True] * (len(titles) - 1), caption="Time of each trace by phase"),
        note="imports before the load are not in it",
    )


def _against(difference: Difference, spent: int, phase: str) -> list[Content]:
    if not difference.variant.successful:
        return ["-", ""]
    return [units.duration(spent), units.signed_duration(spent - difference.baseline.phases.get(phase, 0))]


def _peaks(comparison: Comparison) -> Markup | None:
    parts = parts_of(comparison)
    if not parts:
        return None
    rows: list[list[Content]] = []
    for key, label in parts.items():
        before = part_of(comparison.baseline, key)
        row: list[Content] = [label, units.byte_count(before)]
        for difference in comparison.differences:
            after = part_of(difference.variant, key)
            change = None if before is None or after is None else after - before
            row += [units.byte_count(after), "" if change is None else units.signed_bytes(change)]
        rows.append(row)
    titles = ["part", comparison.baseline.name]
    for difference in comparison.differences:
        titles += [difference.variant.name, "difference"]
    return section(
        "peaks",
        "What the load's peak is made of",
        table(titles, rows, [False] + [True] * (len(titles) - 1), caption="Parts of the load's peak"),
    )


def _tensors(comparison: Comparison) -> Markup:
    content: list[Content] = []
    for difference in comparison.differences:
        diff, base, name = difference.tensors, difference.baseline.name, difference.variant.name
        rows = [row for group in diff.changed[:MOST] for row in tensor_rows(group, "", "")]
        rows += [
            row for group in diff.only_before[:MOST] for row in tensor_rows(group, f"only in {base}", "")
        ]
        rows += [row for group in diff.only_after[:MOST] for row in tensor_rows(group, f"only in {name}", "")]
        content.append(tag("h3", f"{name} against {base}", tag("small", f"{diff.same:,} the same")))
        if not rows:
            nothing = "no tensor differs in name, shape, dtype, device, provenance or tie"
            content.append(tag("p", nothing, class_="quiet"))
            continue
        content.append(
            table(
                ("tensor", "what", "baseline", "variant"),
                [row.cells for row in rows],
                (False, False, True, True),
                caption=f"Tensors of {name} that differ from those of {base}",
            )
        )
        parts = (diff.changed, diff.only_before, diff.only_after)
        if left_out := sum(max(0, len(part) - MOST) for part in parts):
            content.append(remarks([f"{units.count(left_out, 'more group')}: hftrace compare --json"]))
    return section("tensors", "Tensors", content)


def _files(comparison: Comparison) -> Markup:
    ledgers = file_ledgers([variant.typical for variant in comparison.variants])
    every = dict.fromkeys(key for ledger in ledgers for key in ledger)
    names = [key for key in every if len({treated(ledger.get(key)) for ledger in ledgers}) > 1]
    if not names:
        said = "every group asked for the same files, with the same results"
        return section("files", "Files", tag("p", said, class_="quiet"))
    return section(
        "files",
        "Files",
        table(
            ["file", *(variant.name for variant in comparison.variants)],
            [[name.label, *(file_state(ledger.get(name)) for ledger in ledgers)] for name in names[:MOST]],
            [False] * (1 + len(comparison.variants)),
            caption="Files that were not treated alike",
        ),
        note=f"{len(names)} of {len(every)} differ",
    )
