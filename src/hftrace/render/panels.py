"""Which part of the time each column of a chart of memory stands for: panels with an axis of their own."""

from typing import NamedTuple

from hftrace.analysis.memory.usage import ProcessMemory

LOAD_SHARE = 2 / 3
"""The least part of a chart's width that belongs to the loads, whatever the imports took."""
MAX_PANELS = 4


class Panel(NamedTuple):
    """A part of a chart with an axis of its own: ``columns`` columns from ``start_ns`` to ``end_ns``."""

    name: str
    """``all``, ``imports`` or ``load``."""
    start_ns: int
    end_ns: int
    zero_ns: int
    """The time that the axis counts from."""
    columns: int


def chart_panels(process: ProcessMemory, columns: int) -> list[Panel]:
    """Divides the columns of a chart among imports and loads; one between two panels is left for a border.

    Loads get at least two thirds of the width. Loads that lie far apart have
    panels of their own, up to four in all. Returns an empty list where there is no time to draw.
    """
    start, end = process.start_ns, process.end_ns
    if end <= start or columns < 1:
        return []
    groups = [group for group in _groups(process.busy) if group[1] > group[0]]
    if not groups or columns < 12:
        return [Panel("all", start, end, start, columns)]
    lengths = [right - left for left, right in groups]
    before = groups[0][0] - start
    if len(groups) == 1 and lengths[0] >= LOAD_SHARE * (end - start):
        return [Panel("all", start, end, start, columns)]
    lead = round(0.02 * sum(lengths))  # the level before the load is what its rise starts from
    imports = 0
    if before > lead:
        # No wider than its share of the time, and never so narrow that it says nothing.
        imports = min(int(columns * (1 - LOAD_SHARE)) - 1, max(6, columns // 5))
    room = columns - imports - (1 if imports else 0) - (len(groups) - 1)
    least = min(10, room // len(groups))
    widths = [least + int((room - least * len(groups)) * length / sum(lengths)) for length in lengths]
    widths[max(range(len(groups)), key=lambda number: lengths[number])] += room - sum(widths)
    made = [Panel("imports", start, groups[0][0], start, imports)] if imports else []
    for (left, right), width in zip(groups, widths, strict=True):
        made.append(Panel("load", left - (lead if before or made else 0), right, left, width))
    return made


def _groups(busy: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins stretches that lie close together; more than fit beside each other become one."""
    if not busy:
        return []
    near = 0.25 * sum(end - start for start, end in busy)
    groups = [busy[0]]
    for start, end in busy[1:]:
        if start - groups[-1][1] <= near:
            groups[-1] = (groups[-1][0], end)
        else:
            groups.append((start, end))
    return groups if len(groups) < MAX_PANELS else [(busy[0][0], busy[-1][1])]
