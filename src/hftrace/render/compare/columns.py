"""Groups side by side: the baseline first, and as many variants beside it as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hftrace import units
from hftrace.analysis.compare.comparison import Comparison, Difference
from hftrace.analysis.compare.variants import Variant
from hftrace.render.apart import shorten_apart
from hftrace.render.text import DIM, PLAIN, STRONG, Line, fit, notes, width_of

LABEL = 13
"""Width of the labels left of all figures."""


def tables(comparison: Comparison, beside: int) -> Iterable[Sequence[Difference]]:
    """Yields the variants that stand in one table."""
    for first in range(0, len(comparison.differences), beside):
        yield comparison.differences[first : first + beside]


Part = tuple[str, str, str]
"""Key, mark and the mark's style of a part."""


def side_by_side(
    comparison: Comparison,
    rows: Sequence[Part],
    value: Callable[[Variant, str], int | None],
    write: Callable[[int | None], str],
    write_difference: Callable[[int], str],
    width: int,
) -> Iterable[Line]:
    """Yields a table with one row per part: its value in the baseline, then value and difference elsewhere.

    Args:
        comparison: The groups.
        rows: The parts.
        value: Returns a part of a group; None where the group has none.
        write: Returns a value as text.
        write_difference: The same for a difference.
        width: Of the screen.
    """
    labels = min(max(LABEL, *(width_of(key) + 3 for key, _, _ in rows)), max(LABEL, width // 2 - 4))
    base, whole, narrow = 10, 20, 11
    count = len(comparison.differences)
    room = width - labels - base
    both = room >= whole * count or count == 1
    each = whole if both else narrow
    beside = max(1, min(count, room // each))
    both = both and room >= whole
    # Two rows never look like one.
    names = shorten_apart([key for key, _, _ in rows], labels - 2 * any(mark for _, mark, _ in rows))
    for number, shown in enumerate(tables(comparison, beside)):
        if number:
            yield []
        yield [
            (" " * labels, PLAIN),
            (fit(comparison.baseline.name, base - 1, "right") + " ", STRONG),
            *((fit(" " + each_.variant.name, each, "right"), STRONG) for each_ in shown),
        ]
        totals = {variant.name: 0 for variant in comparison.variants}
        for (key, mark, style), name in zip(rows, names, strict=True):
            before = value(comparison.baseline, key)
            totals[comparison.baseline.name] += before or 0
            line: Line = [
                (f"{mark} " if mark else "", style),
                (fit(name, labels - (2 if mark else 0)), PLAIN),
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
