"""Slices of time on tracks, as viewers of timelines need them: on one track they nest, and never cross.

A thread does one thing at a time, so its spans nest. Two exceptions remain. Clocks that are read one after
the other may let a span end some nanoseconds after its parent: it is cut. And coroutines take turns on one
thread: what crosses the one before it keeps its times, and goes to a track of its own.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.spans import Lane, span_index, thread_names
from hftrace.schema.trace import Trace

SLACK_NS = 1_000
"""By how much a span may stick out and still be cut: reading a clock twice takes less. What sticks out by
more did so in truth."""
MOST_LEVELS = 500
"""How deep slices may lie in others: Perfetto keeps 512 levels of a track, and drops the rest."""


class Slice(NamedTuple):
    """A row's time on its track, as it is drawn."""

    row: int
    start_ns: int
    end_ns: int
    level: int
    """How many slices of its track it lies in."""


class Tracks(NamedTuple):
    """What one thread did: its spans, or its imports."""

    lane: Lane
    own: list[Slice]
    """Parents before their children."""
    crossing: list[list[Slice]]
    """Further tracks, each like the first, for what would cross something there."""
    cut: int
    """How many slices are shorter than their spans."""
    cut_ns: int
    """By how much together."""


class Forest(NamedTuple):
    """Rows that lie in one another, by column."""

    lanes: Sequence[Lane]
    starts: Sequence[int]
    ends: Sequence[int]
    children: Sequence[Sequence[int]]


@once
def span_tracks(trace: Trace) -> list[Tracks]:
    """Returns the spans of a trace by thread: the main thread first, then by their first span."""
    index = span_index(trace)
    forest = Forest(index.lanes, index.starts, index.ends, index.children)
    return _by_thread(forest, range(len(index.ids)), index.parents, index.main_lane)


@once
def import_tracks(trace: Trace) -> list[Tracks]:
    """Returns the imports of a trace that have a row of their own, in the same way."""
    column = trace.imports.column
    starts, ends = column("start_ns"), column("end_ns")
    rows = [
        row
        for row, (start, end) in enumerate(zip(starts, ends, strict=True))
        if start is not None and end is not None and start <= end
    ]
    row_of = {column("id")[row]: row for row in rows}
    parents = [row_of.get(parent) for parent in column("parent")]
    main = span_index(trace).main_lane
    lanes = [
        # Where the process is not said, there is one that imports.
        main if main is not None and not pid else Lane(rank, pid, thread)
        for rank, pid, thread in zip(column("rank"), column("pid"), column("thread"), strict=True)
    ]
    children: list[list[int]] = [[] for _ in starts]
    for row in rows:
        # Nobody has checked that these are a tree; of a tree, parents begin first.
        parent = parents[row]
        if parent is not None and (starts[parent], parent) >= (starts[row], row):
            parents[row] = parent = None
        if parent is not None:
            children[parent].append(row)
    return _by_thread(Forest(lanes, starts, ends, children), rows, parents, main)


def _by_thread(
    forest: Forest, rows: Iterable[int], parents: Sequence[int | None], main: Lane | None
) -> list[Tracks]:
    lanes = forest.lanes
    roots: dict[Lane, list[int]] = {}
    for row in rows:
        parent = parents[row]
        if parent is None or lanes[parent] != lanes[row]:
            roots.setdefault(lanes[row], []).append(row)

    def place(lane: Lane) -> tuple[int, bool, bool, int]:
        return (
            lane.rank,
            lane != main,
            lane.thread != lane.pid,
            min(forest.starts[row] for row in roots[lane]),
        )

    return [_Nesting(forest, lane).tracks(roots[lane]) for lane in sorted(roots, key=place)]


class _Nesting:
    """Places the rows of one thread.

    Args:
        forest: All rows.
        lane: The thread.
    """

    def __init__(self, forest: Forest, lane: Lane) -> None:
        self._forest, self._lane = forest, lane
        self._cut = self._cut_ns = 0

    def tracks(self, roots: list[int]) -> Tracks:
        """Returns the tracks of the thread, from the rows that lie in no other of it."""
        own, left = self._nested(roots)
        crossing: list[list[Slice]] = []
        while left:
            packed = pack((self._forest.starts[row], self._forest.ends[row], row) for row in left)
            left = []
            for timed in packed:
                track, more = self._nested([row for _, _, row in timed])
                crossing.append(track)
                left += more
        return Tracks(self._lane, own, crossing, self._cut, self._cut_ns)

    def _nested(self, roots: list[int]) -> tuple[list[Slice], list[int]]:
        """Returns the slices of one track, and the rows that do not fit on it."""
        lanes, children = self._forest.lanes, self._forest.children
        found: list[Slice] = []
        left: list[int] = []
        waiting = self._side_by_side(roots, None, left)[::-1]
        while waiting:
            placed = waiting.pop()
            found.append(placed)
            below = [row for row in children[placed.row] if lanes[row] == self._lane]
            if below and placed.level + 1 >= MOST_LEVELS:
                left += below
            elif below:
                waiting += self._side_by_side(below, placed, left)[::-1]
        return found, left

    def _side_by_side(self, rows: list[int], inside: Slice | None, left: list[int]) -> list[Slice]:
        """Returns the slices of rows that follow one another; those that do not are added to ``left``."""
        starts, ends = self._forest.starts, self._forest.ends
        found: list[Slice] = []
        cursor = None if inside is None else inside.start_ns
        for row in sorted(rows, key=lambda row: (starts[row], ends[row], row)):
            start = starts[row] if cursor is None else max(cursor, starts[row])
            end = ends[row] if inside is None else min(inside.end_ns, ends[row])
            cut = start - starts[row] + ends[row] - end
            if end < start or cut > SLACK_NS:
                left.append(row)
                continue
            self._cut += cut > 0
            self._cut_ns += cut
            found.append(Slice(row, start, end, 0 if inside is None else inside.level + 1))
            cursor = end
        return found


class ReadTracks(NamedTuple):
    """The tensors that one thread read, or several threads together."""

    rank: int
    pid: int | None
    """The process of the span that they were read in; None where that is not known."""
    thread: int | None
    """None for tensors whose keys several threads read."""
    own: list[tuple[int, int, int]]
    """``(start, end, row)`` of the ledger, one after the other."""
    crossing: list[list[tuple[int, int, int]]]
    """Further tracks, for reads that began before another one of the thread had ended: of several keys."""


@once
def read_tracks(trace: Trace) -> list[ReadTracks]:
    """Returns the tensors that have times of their reading, by thread, in the order of their first reads."""
    index = span_index(trace)
    columns = ("rank", "span", "thread", "read_start_ns", "read_end_ns")
    by_thread: dict[tuple[int, int | None, int | None], list[tuple[int, int, int]]] = {}
    for row, (rank, span, thread, start, end) in enumerate(
        zip(*(trace.tensors.column(name) for name in columns), strict=True)
    ):
        if start is not None and end is not None and start <= end:
            inside = index.row_of.get(span)
            pid = None if inside is None else index.lanes[inside].pid
            by_thread.setdefault((rank, pid, thread), []).append((start, end, row))
    found = []
    for lane, reads in by_thread.items():
        packed = pack(reads)
        found.append(ReadTracks(*lane, packed[0], packed[1:]))
    return sorted(found, key=lambda tracks: (tracks.rank, tracks.thread is None, tracks.own[0][0]))


Timed = tuple[int, int, int]


def pack(timed: Iterable[Timed]) -> list[list[Timed]]:
    """Returns ``(start, end, row)`` on as few tracks as it takes, so that none overlap on one track."""
    tracks: list[list[Timed]] = []
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    for each in sorted(timed):
        while busy and busy[0][0] <= each[0]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        track = heapq.heappop(free) if free else len(tracks)
        if track == len(tracks):
            tracks.append([])
        tracks[track].append(each)
        heapq.heappush(busy, (each[1], track))
    return tracks


def nested_by_time(timed: Iterable[Timed]) -> tuple[list[Slice], list[Timed]]:
    """Returns what one thread did as slices that nest, of rows of which only the times are known.

    Returns:
        The slices, and ``(start, end, row)`` of what would cross one of them.
    """
    found: list[Slice] = []
    left: list[Timed] = []
    open_ends: list[int] = []
    for start, end, row in sorted(timed, key=lambda each: (each[0], -each[1], each[2])):
        while open_ends and open_ends[-1] <= start:
            open_ends.pop()
        limit = open_ends[-1] if open_ends else end
        if end - limit > SLACK_NS or len(open_ends) >= MOST_LEVELS:
            left.append((start, end, row))
            continue
        found.append(Slice(row, start, min(end, limit), len(open_ends)))
        open_ends.append(min(end, limit))
    return found, left


def thread_title(trace: Trace, thread: int | None) -> str:
    """Returns what a thread is called; None are several threads together."""
    if thread is None:
        return "several threads"
    main = span_index(trace).main_lane
    is_main = main is not None and thread == main.thread
    name = thread_names(trace).get(thread) or ("main thread" if is_main else None)
    return f"thread {thread}" if name is None else f"{name} ({thread})"
