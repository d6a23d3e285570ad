"""The clocks of threads that read weights, as attributes of the ``weights`` spans that they read for."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Any

from hftrace.replay.reader import OpenedSpan, Process
from hftrace.schema import lines

MAX_READINGS = 200
"""Of one thread for one span: at 30 a second, what a minute of reading takes in full is 1800."""
COUNTERS = (
    "user_ns", "system_ns", "minor_faults", "major_faults", "delay_ns", "called_bytes", "storage_bytes",
)  # fmt: skip


def note_reader_clocks(process: Process) -> None:
    """Puts the readings of each reader's clocks into the span that they were taken in.

    Times there count from the span's start. The last reading before a span is its first one: what a thread
    of several loads had used by then.

    Args:
        process: What the process wrote; its spans are changed.
    """
    found = process.lines_of(lines.Clocks)
    spans = sorted(_outermost(process), key=lambda span: span.start)
    if not found or not spans:
        return
    starts = [span.start for span in spans]
    readings: dict[int, dict[int, list[lines.Clocks]]] = defaultdict(lambda: defaultdict(list))
    latest: dict[int, lines.Clocks] = {}
    for line in sorted(found, key=lambda line: line.time_ns):
        at = bisect_right(starts, line.time_ns) - 1
        if at >= 0:
            mine = readings[at][line.thread]
            if not mine and line.thread in latest:
                mine.append(latest[line.thread])
            mine.append(line)
        latest[line.thread] = line
    for at, by_thread in readings.items():
        span = spans[at]
        span.attributes["readers"] = [_facts(span, mine) for mine in by_thread.values()]


def _outermost(process: Process) -> list[OpenedSpan]:
    weights = {span.id: span for span in process.spans.values() if span.phase == "weights"}
    return [span for span in weights.values() if span.parent not in weights]


def _facts(span: OpenedSpan, readings: list[lines.Clocks]) -> dict[str, Any]:
    step = -(-len(readings) // MAX_READINGS)
    kept = [*readings[:-1:step], readings[-1]]
    born = next((line.born_ns for line in kept if line.born_ns is not None), None)
    return {
        "thread": readings[0].thread,
        "born_ns": born - span.start if born is not None else None,
        "time_ns": [line.time_ns - span.start for line in kept],
        **{name: [getattr(line, name) for line in kept] for name in COUNTERS},
    }
