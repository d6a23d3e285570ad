"""The phases of each group as bars on one axis, as figures, and functions that only one has."""

from __future__ import annotations

from collections.abc import Iterable

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison, Difference
from hftrace.analysis.time.timeline import dominant
from hftrace.render.charts import axis_text, lane_line
from hftrace.render.compare.columns import side_by_side
from hftrace.render.compare.options import CompareOptions
from hftrace.render.tables import Column, Row, table
from hftrace.render.text import (
    DIM,
    PHASES,
    PLAIN,
    Block,
    Line,
    fit,
    heading,
    legend,
    notes,
    phase_letter,
    phase_style,
    shorten,
    width_of,
)


def draw(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns the phases of each group as bars on one axis, as figures, and functions that only one has."""

    def lines(width: int) -> Iterable[Line]:
        yield from _bars(comparison, width)
        phases = phases_of(comparison)
        if phases:
            yield []
            yield from side_by_side(
                comparison,
                [(phase, phase_letter(phase), phase_style(phase)) for phase in phases],
                lambda variant, phase: variant.phases.get(phase, 0) if variant.successful else None,
                units.duration,
                units.signed_duration,
                width,
            )
        for difference in comparison.differences:
            yield from _calls(difference, width)

    return [Block(lines)]


def brief(comparison: Comparison, options: CompareOptions) -> list[Block]:
    """Returns the bars alone."""
    return [Block(lambda width: _bars(comparison, width))]


def phases_of(comparison: Comparison) -> list[str]:
    """Returns all phases, the longest in any group first."""
    longest: dict[str, int] = {}
    for variant in comparison.variants:
        for phase, spent in variant.phases.items():
            longest[phase] = max(spent, longest.get(phase, 0))
    return sorted(longest, key=lambda phase: -longest[phase])


def _bars(comparison: Comparison, width: int) -> Iterable[Line]:
    longest = max((sum(variant.phases.values()) for variant in comparison.variants), default=0)
    labels = _label_width(comparison, width)
    columns = max(8, width - labels - 12)
    if longest <= 0:
        yield heading("Phases of the load", width)
        yield [("nothing to draw: no group has a time", DIM)]
        return
    yield heading("Phases of the load", width, f"1 column = {units.duration(longest / columns)}")
    known = list(PHASES)
    used: set[str] = set()
    for variant in comparison.variants:
        stretches = []
        at = 0
        for phase in sorted(variant.phases, key=lambda name: known.index(name) if name in known else 99):
            stretches.append((at, at + variant.phases[phase], phase))
            at += variant.phases[phase]
        row = dominant(stretches, 0, longest, columns)
        used.update(phase for phase in row if phase)
        spent = units.duration(at) if variant.successful else "no figure"
        yield [
            (fit(variant.name, labels) + " ", DIM),
            *lane_line(row),
            (fit(spent, 11, "right"), PLAIN),
        ]
    yield [(fit("time", labels) + " ", DIM), (axis_text(longest, columns), DIM)]
    yield from legend(used, width)
    yield from notes(
        ["exclusive times in the run in the middle; imports before the load are not in it"], width
    )


def _label_width(comparison: Comparison, width: int) -> int:
    longest = max(width_of(variant.name) for variant in comparison.variants)
    return max(8, min(longest, width // 4))


def _calls(difference: Difference, width: int) -> Iterable[Line]:
    for variant, calls in zip((difference.baseline, difference.variant), difference.calls, strict=True):
        if not calls:
            continue
        other = difference.variant if variant is difference.baseline else difference.baseline
        rows = [
            Row(
                (
                    call.function,
                    call.phase,
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
        title = f"Only {variant.name} calls"
        yield []
        yield from table(shorten(title, width - 4), f"not {other.name}", columns, rows, remarks).lines(width)
