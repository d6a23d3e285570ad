"""What became of the HTTP requests: which failed at which host, and the time that this took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hftrace.analysis.once import once
from hftrace.analysis.time.reading import merge
from hftrace.analysis.time.spans import span_index
from hftrace.schema.model import Request
from hftrace.schema.trace import Trace

WAITING = ("resolve", "download")
"""Phases in which files are looked for and fetched."""
HANGING_NS = 5_000_000_000
"""A request that was open for so long when the process ended had no answer; a younger one may have got it."""


@dataclass
class HostFailures:
    """The requests to one host that failed."""

    host: str | None
    requests: int = 0
    """All that were sent there."""
    failed: int = 0
    unanswered: int = 0
    """Of those that failed, how many were still open at the end."""
    repeated: int = 0
    """How many were sent again because one had failed before."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Types of exceptions, and statuses."""
    stretches: list[tuple[int, int]] = field(default_factory=list)
    """Start and end of each failed request, with the wait before the next attempt."""

    @property
    def lost_ns(self) -> int:
        """Time in which one of them, or such a wait, was under way."""
        return length(self.stretches)


def length(stretches: Iterable[tuple[int, int]]) -> int:
    """Returns the time that stretches cover together."""
    return sum(end - start for start, end in merge(stretches))


def answered(trace: Trace) -> list[Request]:
    """Returns the requests that got an answer, and not one that says to try again."""
    return [row for row in trace.requests if row.status is not None and not row.failed]


@once
def failures(trace: Trace) -> list[HostFailures]:
    """Returns the hosts at which requests failed, the most time lost first."""
    rows = list(trace.requests)
    again = {_key(row, row.attempt): row.time_ns for row in reversed(rows) if row.attempt is not None}
    hosts: dict[str | None, HostFailures] = {}
    for row in rows:
        host = hosts.setdefault(row.host, HostFailures(row.host))
        host.requests += 1
        host.repeated += (row.attempt or 1) > 1
        end = _end(trace, row)
        silent = row.status is None and row.error is None and row.transport == "http"
        hanging = silent and end - row.time_ns >= HANGING_NS
        if not row.failed and not hanging:
            continue
        host.failed += 1
        host.unanswered += hanging
        host.reasons[row.error or (f"status {row.status}" if row.status is not None else "no answer")] += 1
        following = again.get(_key(row, (row.attempt or 1) + 1))
        if following is not None and following > row.time_ns:
            end = following
        host.stretches.append((row.time_ns, max(end, row.time_ns)))
    return sorted((host for host in hosts.values() if host.failed), key=lambda host: -host.lost_ns)


def _key(row: Request, attempt: int) -> tuple[Any, ...]:
    return row.rank, row.thread, row.asked_by, row.method, row.host, row.path, attempt


def _end(trace: Trace, row: Request) -> int:
    """Returns when a request was over; for one whose end nobody saw, when what it was sent for was."""
    if row.duration_ns is not None:
        return row.time_ns + row.duration_ns
    index = span_index(trace)
    asker = index.row_of.get(row.asked_by) if row.asked_by is not None else None
    return index.ends[asker] if asker is not None else row.time_ns + (row.wait_ns or 0)


class HostTraffic(NamedTuple):
    """What came from one host while the main thread waited for files."""

    host: str | None
    bytes: int | None
    """None where of some of it nobody counted them."""
    spent_ns: int


@once
def waited_for(trace: Trace) -> tuple[list[HostTraffic], int]:
    """Returns what came over the network while the main thread looked for files or had them fetched.

    Those requests that failed are left out: :func:`failures` has them.

    Returns:
        The hosts, the most time first, and the time in which any of their requests was under way.
    """
    index = span_index(trace)
    lane = index.main_lane
    waiting = merge(
        (index.starts[row], index.ends[row])
        for row, phase in enumerate(index.phases)
        if phase in WAITING and index.lanes[row] == lane
    )
    by_host: dict[str | None, list[Request]] = {}
    for row in trace.requests:
        if not row.failed and (lane is None or row.rank == lane.rank):
            by_host.setdefault(row.host, []).append(row)
    found, all_of_them = [], []
    for host, rows in by_host.items():
        under_way = ((row.time_ns, max(_end(trace, row), row.time_ns)) for row in rows)
        stretches = list(_both(merge(under_way), waiting))
        sizes = [row.bytes for row in rows if row.bytes or row.method not in ("HEAD",)]
        known = None if None in sizes else sum(size or 0 for size in sizes)
        all_of_them += stretches
        found.append(HostTraffic(host, known, length(stretches)))
    return sorted(found, key=lambda each: -each.spent_ns), length(all_of_them)


def _both(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yields when both had something under way; each is in order and overlaps nowhere."""
    at = 0
    for start, end in left:
        while at < len(right) and right[at][1] <= start:
            at += 1
        for begun, ended in right[at:]:
            if begun >= end:
                break
            yield max(start, begun), min(end, ended)
