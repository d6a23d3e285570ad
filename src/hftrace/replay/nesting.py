"""Puts into the caller's steps, calls and imports outside of loads what ran in them.

All are written as root spans, so that a load in one of them is the outermost
load for everything that looks at loads. That is done with here, last: a trace
has a span's parent by what really lay in what.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping, Set
from typing import NamedTuple

from hftrace.replay.reader import OpenedSpan, Process

CALLS = ("generate", "prefill", "decode", "forward", "tokenize", "processor", "dispatch")
"""Phases of what a program calls besides loads, and of what lies in it."""
AROUND = ("step", "import", *CALLS)
"""Phases of root spans that may lie around loads, and inside them."""


class _Open(NamedTuple):
    """A span that may hold those that begin after it."""

    span: OpenedSpan
    since: int
    """When it begins to: one that crosses another step does so when that one has ended."""

    def holds(self, span: OpenedSpan) -> bool:
        return self.since <= span.start and _end(span) <= _end(self.span)


def add_own_time(process: Process) -> None:
    """Notes with root spans how long hftrace itself was at work after them, as ``own_ns``."""
    ends: dict[int, list[OpenedSpan]] = defaultdict(list)
    for span in process.spans.values():
        if span.parent is None:
            ends[span.thread].append(span)
    for spans in ends.values():
        spans.sort(key=_end)
    for fact in process.facts.get("own", []):
        thread, until = fact.get("thread"), fact.get("until_ns")
        if not isinstance(thread, int) or not isinstance(until, int):
            continue
        before = bisect.bisect_right(ends[thread], until, key=_end)
        if before:
            last = ends[thread][before - 1]
            last.attributes["own_ns"] = until - _end(last)


def nest(process: Process) -> None:
    """Gives steps, calls and imports outside of loads their place among the spans of their thread."""
    by_thread: dict[int, list[OpenedSpan]] = defaultdict(list)
    for span in process.spans.values():
        by_thread[span.thread].append(span)
    for spans in by_thread.values():
        around = {span.id for span in spans if span.parent is None and span.phase in AROUND}
        for span in spans:  # parents come before their children
            if span.parent in around and span.phase in CALLS:
                around.add(span.id)
        if around:
            _nest(spans, around, process.spans)


def _nest(spans: list[OpenedSpan], around: set[int], known: Mapping[int, OpenedSpan]) -> None:
    """Nests the spans of one thread.

    Steps of coroutines may cross one another: what lies in two that do so is in the one that began first.

    Args:
        spans: All of the thread's.
        around: Which of them may take in others that are not their own.
        known: All of the process, by id.
    """
    opened: list[_Open] = []
    # Of two that began at once, the longer one is around the other.
    for span in sorted(spans, key=lambda span: (span.start, -_end(span), span.id)):
        opened = [each for each in opened if _end(each.span) > span.start]
        holders = [each.span.id for each in opened if each.holds(span)]
        own = span.parent if span.parent in known else None
        if holders and (
            span.id in around or (holders[-1] in around and (own is None or own in holders[:-1]))
        ):
            span.parent = holders[-1]
        crossed = [
            _end(each.span) for each in opened if each.span.id in around and each.span.id not in holders
        ]
        since = max([span.start, *crossed]) if span.id in around else span.start
        if _end(span) > since:
            opened.append(_Open(span, since))


def _end(span: OpenedSpan) -> int:
    return span.start if span.end is None else span.end


def roots(spans: Mapping[int, OpenedSpan], parts: Set[int] = frozenset()) -> dict[int, int]:
    """Returns the outermost span above each span, or the part that it belongs to."""
    roots: dict[int, int] = {}
    for span in spans.values():
        above, path = span, []
        while above.id not in roots:
            path.append(above.id)
            roots[above.id] = above.id
            if above.id in parts or above.parent is None or above.parent not in spans:
                break
            above = spans[above.parent]
        for identity in path:
            roots[identity] = roots[above.id]
    return roots
