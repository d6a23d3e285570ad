"""Which of many spans was open at a time: asked once per tensor, so each answer takes a binary search."""

from __future__ import annotations

import bisect
import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence

from hftrace.replay.reader import OpenedSpan


class Timeline:
    """Which span of one thread was innermost at a time.

    Args:
        spans: ``(id, start, end)`` of spans that nest.
    """

    def __init__(self, spans: Iterable[tuple[int, int, int]]) -> None:
        ordered = sorted(spans, key=lambda item: (item[1], -item[2], item[0]))
        self._times: list[int] = []
        self._inner: list[int | None] = []
        stack: list[tuple[int, int]] = []
        for identity, start, end in ordered:
            self._close(stack, start)
            self._set(start, identity)
            stack.append((identity, end))
        self._close(stack, None)

    def _close(self, stack: list[tuple[int, int]], until: int | None) -> None:
        while stack and (until is None or stack[-1][1] <= until):
            _, end = stack.pop()
            self._set(end, stack[-1][0] if stack else None)

    def _set(self, time_ns: int, identity: int | None) -> None:
        if self._times and self._times[-1] == time_ns:
            self._inner[-1] = identity
        else:
            self._times.append(time_ns)
            self._inner.append(identity)

    def innermost(self, time_ns: int) -> int | None:
        """Returns the span, or None outside of all."""
        index = bisect.bisect_right(self._times, time_ns) - 1
        return self._inner[index] if index >= 0 else None

    def edge_between(self, after: int, before: int) -> bool:
        """Returns whether any span begins or ends strictly between two times."""
        return bisect.bisect_left(self._times, before) > bisect.bisect_right(self._times, after)


def timelines_by_thread(spans: Iterable[OpenedSpan]) -> dict[int, Timeline]:
    """Returns the timeline of each thread that has spans."""
    by_thread: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for span in spans:
        by_thread[span.thread].append((span.id, span.start, span.end or span.start))
    return {thread: Timeline(items) for thread, items in by_thread.items()}


class LatestOpen:
    """Which of several intervals that hold a time began last; they may lie inside and across one another.

    Args:
        intervals: ``(start, end)`` in order of their starts; both belong to the interval.
    """

    def __init__(self, intervals: Sequence[tuple[int, int]]) -> None:
        self._edges = sorted({edge for start, end in intervals for edge in (start, end + 1)})
        self._latest: list[int | None] = []
        begun = 0
        open_now: list[int] = []  # positions, negated: the last one first
        for edge in self._edges:
            while begun < len(intervals) and intervals[begun][0] <= edge:
                heapq.heappush(open_now, -begun)
                begun += 1
            while open_now and intervals[-open_now[0]][1] < edge:
                heapq.heappop(open_now)
            self._latest.append(-open_now[0] if open_now else None)

    def at(self, time_ns: int) -> int | None:
        """Returns the interval's position, or None where there is none."""
        index = bisect.bisect_right(self._edges, time_ns) - 1
        return self._latest[index] if index >= 0 else None
