"""The time in which a loader quantised weights, as spans of a phase of its own.

What is recorded of a tensor is the whole of its conversion, in which it may be
read and waited for first: quantising begins where its last source is there.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable
from operator import attrgetter

from hftrace.replay.events import Convert, Read
from hftrace.replay.nesting import roots
from hftrace.replay.quantized import HANDED, QUANTIZES
from hftrace.replay.reader import OpenedSpan, Process
from hftrace.replay.spans import MERGE_GAP_NS
from hftrace.replay.timeline import Timeline, timelines_by_thread
from hftrace.schema import lines
from hftrace.schema.lines import Edge

LEAST_NS = 100_000
"""Shorter stretches stay in the time of the span around them."""


def add_quantize_spans(process: Process) -> None:
    """Turns neighbouring calls that quantised a tensor into spans below the one that they happened in."""
    calls: dict[int, list[Convert]] = defaultdict(list)
    for convert in process.events_of(Convert):
        if any(QUANTIZES in operation or operation == HANDED for operation in convert.operations):
            calls[convert.thread].append(convert)
    handed = _handed_numbers(process)
    if not calls:
        return
    reads, arrived = _reads(process)
    timelines = timelines_by_thread(process.spans.values())
    below = roots(process.spans)
    number = max(process.spans, default=0)
    for thread, converts in calls.items():
        timeline = timelines.get(thread)
        if timeline is None:
            continue
        stretches = [
            (_start(convert, reads[thread], arrived), convert.end)
            for convert in sorted(converts, key=attrgetter("start"))
            if HANDED not in convert.operations or below.get(timeline.innermost(convert.start) or 0) in handed
        ]
        for parent, start, end, count in _joined(stretches, timeline):
            number += 1
            process.spans[number] = OpenedSpan(
                number,
                parent,
                "quantize",
                "quantize",
                None,
                thread,
                start,
                Edge(),
                {"tensors": count},
                end=end,
                status="ok",
                # No edge of its own was read; its parent's watermark is the bound that is known.
                peak=process.spans[parent].peak,
            )


def _handed_numbers(process: Process) -> set[int]:
    """Returns the loads whose quantiser, up to 4.57, was handed numbers, and no codes that were stored."""
    found: set[int] = set()
    for got in process.facts.get("got", []):
        said, span = got.get("quantization"), got.get("span")
        if isinstance(said, dict) and said.get("pre_quantized") is False and isinstance(span, int):
            found.add(span)
    return found


def _reads(process: Process) -> tuple[dict[int, list[int]], dict[str, int]]:
    """Returns when reads ended: by thread in order, and by the key that was read."""
    keys: dict[int, str] = {}
    for line in process.lines_of(lines.Slices):
        keys.update(line.keys())
    ends: dict[int, list[int]] = defaultdict(list)
    arrived: dict[str, int] = {}
    for read in process.events_of(Read):
        ends[read.thread].append(read.end)
        if read.slice_id in keys:
            arrived[keys[read.slice_id]] = read.end
    for own in ends.values():
        own.sort()
    return ends, arrived


def _start(convert: Convert, ends: list[int], arrived: dict[str, int]) -> int:
    """Returns when the last of a tensor's sources was there."""
    found = [convert.start, *(arrived.get(source, 0) for source in convert.sources)]
    at = bisect.bisect_right(ends, convert.end) - 1
    if at >= 0:
        found.append(ends[at])
    return min(max(found), convert.end)


def _joined(stretches: Iterable[tuple[int, int]], timeline: Timeline) -> Iterable[tuple[int, int, int, int]]:
    """Yields span, start, end and number of tensors of stretches that lie close together in one span."""
    parent: int | None = None
    start = end = count = 0
    for begun, ended in stretches:
        above = timeline.innermost(begun)
        near = begun - end < MERGE_GAP_NS and not timeline.edge_between(end, begun)
        if count and above == parent and near:
            end, count = ended, count + 1
            continue
        if parent is not None and count and end - start >= LEAST_NS:
            yield parent, start, end, count
        parent, start, end, count = above, begun, ended, 1
    if parent is not None and count and end - start >= LEAST_NS:
        yield parent, start, end, count
