"""Time that several threads spend at once: each moment counts once, whatever runs in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hftrace.analysis.time.spans import SpanIndex


def union_ns(stretches: Iterable[tuple[int, int]]) -> int:
    """Returns the time in which any of the stretches ran, given as ``(start, end)`` in any order."""
    total, reached = 0, None
    for start, end in sorted(stretches):
        begin = start if reached is None else max(start, reached)
        if end > begin:
            total += end - begin
        reached = end if reached is None else max(reached, end)
    return total


def shared_by_row(index: SpanIndex, rows: Sequence[int]) -> dict[int, int]:
    """Returns the exclusive time of each span below ``rows``, on their threads.

    Where several threads are at work at once, each has an equal part of that
    time: so all of it adds up to the time in which any of them was, to the
    nanosecond, and no part is ever more than the whole. A step that the caller
    names may wait for what another thread does, as one of a coroutine does that
    loads in a thread: it has the moments in which nothing else is at work.
    """
    if len({index.lanes[row] for row in rows}) < 2:
        return {row: index.self_ns(row) for row in index.walk_thread(rows)}
    times = dict.fromkeys(index.walk_thread(rows), 0)
    edges: list[tuple[int, bool, int]] = []
    for start, end, row in index.exclusive(rows):
        edges += ((start, True, row), (end, False, row))
    edges.sort()  # at one moment what ends comes first
    steps: dict[int, int] = {}
    others: dict[int, int] = {}
    before = 0
    for time_ns, begins, row in edges:
        sharing = others or steps
        if sharing and time_ns > before:
            part, left = divmod(time_ns - before, len(sharing))
            for place, working in enumerate(sharing):
                times[working] += part + (place < left)
        before = time_ns
        at_work = steps if index.phases[row] == "step" else others
        if begins:
            at_work[row] = at_work.get(row, 0) + 1
        elif at_work[row] > 1:
            at_work[row] -= 1
        else:
            del at_work[row]
    return times
