"""The tree of spans as an index of rows, and the time that each span had to itself.

Rows are positions in the table of spans. Every walk here is a loop, never a
recursion: a trace may be as deep as it likes.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hftrace.analysis.once import once
from hftrace.schema.model import Span, Table
from hftrace.schema.trace import Trace, outermost_loads
from hftrace.schema.vocabulary import AFTER_LOAD

UNATTRIBUTED = "unattributed"
"""Stands for the self time of phase ``load``: inside a load, and in no named phase."""


class Lane(NamedTuple):
    """One thread of one process of one rank: where time adds up."""

    rank: int
    pid: int
    thread: int


class SpanIndex:
    """Children, lanes and exclusive times of a table of spans.

    Args:
        spans: The table; it is read by column and never copied into rows.
    """

    def __init__(self, spans: Table[Span]) -> None:
        self.ids: list[int] = spans.column("id")
        self.phases: list[str] = spans.column("phase")
        self.starts: list[int] = spans.column("start_ns")
        self.ends: list[int] = spans.column("end_ns")
        self.lanes = [
            Lane(*key)
            for key in zip(spans.column("rank"), spans.column("pid"), spans.column("thread"), strict=True)
        ]
        self.row_of = {identity: row for row, identity in enumerate(self.ids)}
        self.parents: list[int | None] = [
            None if parent is None else self.row_of.get(parent) for parent in spans.column("parent")
        ]
        self.children: list[list[int]] = [[] for _ in self.ids]
        for row, parent_row in enumerate(self.parents):
            if parent_row is not None:
                self.children[parent_row].append(row)
        for below in self.children:
            below.sort(key=self._by_start)
        self.roots = sorted(
            (row for row, parent in enumerate(self.parents) if parent is None), key=self._by_start
        )
        self.load_rows = outermost_loads(spans)
        """The outermost loads, in order of time."""
        self._bounds = self._clip()

    def _by_start(self, row: int) -> tuple[int, int]:
        return self.starts[row], row

    def _own_thread(self, row: int) -> Iterator[int]:
        """Yields the children that ran on the span's own thread."""
        lane = self.lanes[row]
        return (child for child in self.children[row] if self.lanes[child] == lane)

    def _clip(self) -> list[tuple[int, int]]:
        """Returns start and end of each span, cut so that spans of a thread nest without overlap.

        Clocks of two hooks may disagree by some nanoseconds, and a damaged
        trace by more; after this, exclusive times add up to the wall exactly.
        """
        bounds = [(start, max(start, end)) for start, end in zip(self.starts, self.ends, strict=True)]
        cursors: dict[Lane, int] = {}
        for row in self.roots:
            # Steps of coroutines may cross one another.
            start = max(bounds[row][0], cursors.get(self.lanes[row], bounds[row][0]))
            cursors[self.lanes[row]] = end = max(bounds[row][1], start)
            bounds[row] = (start, end)
        for row in self.walk(self.roots):
            cursor, limit = bounds[row]
            for child in self._own_thread(row):
                start = min(max(bounds[child][0], cursor), limit)
                cursor = min(max(bounds[child][1], start), limit)
                bounds[child] = (start, cursor)
        return bounds

    def walk(self, rows: Iterable[int]) -> Iterator[int]:
        """Yields rows and everything below them, parents first."""
        stack = list(rows)[::-1]
        while stack:
            row = stack.pop()
            yield row
            stack.extend(reversed(self.children[row]))

    def walk_thread(self, rows: Iterable[int]) -> Iterator[int]:
        """Like :meth:`walk`, but stays on the thread of each row."""
        stack = list(rows)[::-1]
        while stack:
            row = stack.pop()
            yield row
            stack.extend(list(self._own_thread(row))[::-1])

    def bounds(self, row: int) -> tuple[int, int]:
        """Returns when a span began and ended, so that it lies inside of its parent."""
        return self._bounds[row]

    def wall_ns(self, row: int) -> int:
        """Returns the wall time of a span."""
        start, end = self._bounds[row]
        return end - start

    def self_ns(self, row: int) -> int:
        """Returns the time of a span that lies in none of its children on the same thread."""
        return self.wall_ns(row) - sum(self.wall_ns(child) for child in self._own_thread(row))

    def exclusive(self, rows: Iterable[int]) -> Iterator[tuple[int, int, int]]:
        """Yields ``(start, end, row)`` of each stretch of exclusive time below ``rows``, on their threads."""
        for row in self.walk_thread(rows):
            cursor, end = self._bounds[row]
            for child in self._own_thread(row):
                child_start, child_end = self._bounds[child]
                if child_start > cursor:
                    yield cursor, child_start, row
                cursor = child_end
            if end > cursor:
                yield cursor, end, row

    def phase_times(self, rows: Iterable[int]) -> dict[str, int]:
        """Returns exclusive time by phase below ``rows``, longest first; ``load`` counts as unattributed."""
        times: dict[str, int] = {}
        for row in self.walk_thread(rows):
            phase = UNATTRIBUTED if self.phases[row] == "load" else self.phases[row]
            times[phase] = times.get(phase, 0) + self.self_ns(row)
        return dict(sorted(times.items(), key=lambda item: -item[1]))

    @property
    def main_lane(self) -> Lane | None:
        """The thread of the first load of the lowest rank; of the first span where there is no load."""
        candidates = self.load_rows or self.roots
        if not candidates:
            return None
        return self.lanes[min(candidates, key=lambda row: (self.lanes[row].rank, *self._by_start(row)))]

    @property
    def main_roots(self) -> list[int]:
        """The root spans of the main thread."""
        lane = self.main_lane
        return [row for row in self.roots if self.lanes[row] == lane]

    @property
    def process_roots(self) -> list[int]:
        """The root spans of the main thread's process, on all of its threads."""
        lane = self.main_lane
        return [row for row in self.roots if lane is not None and self.lanes[row][:2] == lane[:2]]

    def nearest(self, phases: Iterable[str]) -> list[int | None]:
        """Returns, for each row, the innermost span of one of ``phases`` that it is or lies in."""
        wanted = set(phases)
        result: list[int | None] = [None] * len(self.ids)
        for row in self.walk(self.roots):
            parent = self.parents[row]
            if self.phases[row] in wanted:
                result[row] = row
            elif parent is not None:
                result[row] = result[parent]
        return result


@once
def span_index(trace: Trace) -> SpanIndex:
    """Returns tree and exclusive times of the spans."""
    return SpanIndex(trace.spans)


@once
def asked_after(trace: Trace) -> frozenset[int]:
    """Returns the rows of what hftrace itself was asked to do after a load: touch, forward and so on.

    What a program calls by the same names, as a pipeline's forward, is a call of a function that is hooked.
    """
    index, functions = span_index(trace), trace.spans.column("function")
    attributes = trace.spans.column("attributes")
    return frozenset(
        row
        for row in index.roots
        if index.phases[row] in AFTER_LOAD
        and functions[row] is None
        # Nor is a model that the program itself has let go of.
        and "of_load" not in (attributes[row] if isinstance(attributes[row], dict) else {})
    )


@once
def thread_names(trace: Trace) -> dict[int, str]:
    """Returns the names of threads by their id, as far as the header has them."""
    names: dict[int, str] = {}
    known = trace.header.get("threads")
    for entry in known if isinstance(known, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("thread"), int) and entry.get("name"):
            names[entry["thread"]] = str(entry["name"])
    return names
