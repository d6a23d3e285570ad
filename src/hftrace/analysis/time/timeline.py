"""Lanes of time: what each thread did, who waited, who read."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import take, tensor_batches
from hftrace.analysis.time.process_names import name_of_process
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.session import session_bounds
from hftrace.analysis.time.spans import Lane, span_index, thread_names
from hftrace.schema.trace import Trace

MAIN = "MainThread"
POOL = "ThreadPoolExecutor-"
"""What Python calls its first thread, and those of a pool."""


class SpanLane(NamedTuple):
    """A thread that ran spans: stretches of ``(start_ns, end_ns, phase)`` without overlap, in order."""

    lane: Lane
    name: str
    stretches: list[tuple[int, int, str]]


class ReadLane(NamedTuple):
    """A thread that read tensors for another one: the stretches of its reads."""

    rank: int
    thread: int
    name: str
    stretches: list[tuple[int, int]]
    busy_ns: int


class Timeline(NamedTuple):
    """All lanes, over the same time."""

    start_ns: int
    end_ns: int
    spans: list[SpanLane]
    reads: list[ReadLane]
    waits: list[tuple[int, int]]
    steps: list[tuple[int, int, str]]
    """What the caller named, on whatever thread: the innermost names, without overlap on a thread."""


Value = TypeVar("Value", int, tuple[int, ...])


def stretches_by_lane(trace: Trace) -> dict[Lane, list[tuple[int, int, str]]]:
    """Returns, by thread, the stretches ``(start_ns, end_ns, phase)`` of its spans, in any order."""
    index = span_index(trace)
    lanes: dict[Lane, list[tuple[int, int, str]]] = {}
    thread_roots = [
        row
        for row in index.walk(index.roots)
        if (parent := index.parents[row]) is None or index.lanes[parent] != index.lanes[row]
    ]
    thread_roots.sort(key=lambda row: (index.starts[row], row))
    for start, end, row in index.exclusive(thread_roots):
        lanes.setdefault(index.lanes[row], []).append((start, end, index.phases[row]))
    return lanes


def timeline(trace: Trace) -> Timeline:
    """Returns the lanes of a trace: the main thread first, then by their first span or read."""
    index = span_index(trace)
    main = index.main_lane
    lanes = stretches_by_lane(trace)
    names = thread_names(trace)
    ordered = sorted(lanes, key=lambda lane: (lane != main, lane.rank, lane.pid, min(lanes[lane])))

    def title(rank: int, pid: int | None, thread: int, fallback: str) -> str:
        name, process = names.get(thread) or fallback, name_of_process(trace, rank, pid)
        if process is None:
            return name
        # The column is narrow: of a process its number is enough, of a rank's first thread that it is one.
        if process.startswith("rank"):
            return process if name == MAIN else f"{process} {name.replace(POOL, 'pool-')}"
        return f"{process.removeprefix('process ')} {name}"

    reads: dict[tuple[int, int], list[tuple[int, int]]] = {
        key: [] for key in weight_reading(trace).reader_threads
    }
    loaded = as_loaded(trace)
    column = loaded.tensors.column
    for batch in tensor_batches(loaded):
        stretches = reads.get((batch.rank, batch.thread)) if batch.thread is not None else None
        if stretches is not None and batch.read:
            times = zip(
                take(column("read_start_ns"), batch.rows),
                take(column("read_end_ns"), batch.rows),
                strict=True,
            )
            stretches += [(start_ns, end_ns) for start_ns, end_ns in times if end_ns is not None]
    first = min((index.starts[row] for row in index.roots), default=0)
    last = max((index.ends[row] for row in index.roots), default=0)
    bounds = session_bounds(trace)
    if bounds.known:
        first, last = bounds.start_ns, bounds.end_ns
    span_lanes = [
        SpanLane(
            lane,
            title(lane.rank, lane.pid, lane.thread, "main" if lane == main else f"thread {number}"),
            sorted(lanes[lane]),
        )
        for number, lane in enumerate(ordered)
    ]
    read_lanes = [
        ReadLane(
            rank,
            thread,
            title(rank, None, thread, f"reader {number + 1}"),
            stretches,
            weight_reading(trace).reader_threads[rank, thread],
        )
        for number, ((rank, thread), stretches) in enumerate(
            sorted(
                ((key, own) for key, own in reads.items() if own), key=lambda item: (item[0][0], min(item[1]))
            )
        )
    ]
    waits = weight_reading(trace).waits
    return Timeline(first, max(first, last), span_lanes, read_lanes, waits, _steps(trace))


def _steps(trace: Trace) -> list[tuple[int, int, str]]:
    """Returns when the caller was in a step of his own, by the innermost name."""
    index, names = span_index(trace), trace.spans.column("name")
    innermost = index.nearest(("step",))
    found: list[tuple[int, int, str]] = []
    roots = [row for row in index.roots if any(index.phases[each] == "step" for each in index.walk([row]))]
    for start, end, row in index.exclusive(roots):
        step = innermost[row]
        if step is not None:
            found.append((start, end, str(names[step])))
    return sorted(found)


def coverage(stretches: Sequence[tuple[int, int]], start: int, end: int, parts: int) -> list[float]:
    """Returns, for each of ``parts`` equal parts of the time, the share that the stretches cover."""
    if end <= start or parts <= 0:
        return [0.0] * max(0, parts)
    lefts = sorted([left for left, right in stretches if left < right])
    rights = sorted([right for left, right in stretches if left < right])
    length = (end - start) / parts
    shares: list[float] = []
    before = 0.0
    whole = began = ended = 0
    for part in range(parts + 1):
        # Up to a time lies all that has ended by then, and of what has only begun the part since.
        time = start + part * length
        more_began, more_ended = bisect_right(lefts, time, began), bisect_right(rights, time, ended)
        whole += sum(rights[ended:more_ended]) - sum(lefts[began:more_began])
        began, ended = more_began, more_ended
        covered = whole + (began - ended) * time
        shares.append(min(1.0, (covered - before) / length))
        before = covered
    return shares[1:]


def dominant(
    stretches: Iterable[tuple[int, int, str]], start: int, end: int, columns: int
) -> list[str | None]:
    """Returns, for each part of the time, the phase that took most of it; None where nothing ran."""
    shares: list[dict[str, float]] = [{} for _ in range(max(0, columns))]
    if end <= start or columns <= 0:
        return [None] * max(0, columns)
    length = (end - start) / columns
    for left, right, phase in stretches:
        left, right = max(left, start), min(right, end)
        if right <= left:
            continue
        first = min(columns - 1, int((left - start) / length))
        last = min(columns - 1, int((right - start) / length))
        for column in range(first, last + 1):
            covered = min(right, start + (column + 1) * length) - max(left, start + column * length)
            shares[column][phase] = shares[column].get(phase, 0.0) + covered
    # Less than a tenth of a column is too little to call the column its own.
    return [
        max(share, key=lambda phase: share[phase]) if share and sum(share.values()) > 0.1 * length else None
        for share in shares
    ]


def resample(points: Sequence[tuple[int, Value]], start: int, end: int, columns: int) -> list[Value | None]:
    """Returns the largest value in each part of the time; where there is none, the one before holds on.

    Values are numbers, or tuples of numbers that are compared by the first of them.
    """
    result: list[Value | None] = [None] * max(0, columns)
    if end <= start or columns <= 0:
        return result
    length = (end - start) / columns
    before: Value | None = None
    for time, value in points:
        if time < start:
            before = value
            continue
        if time > end:
            break
        column = min(columns - 1, int((time - start) / length))
        known = result[column]
        result[column] = value if known is None else max(known, value)
    for column in range(len(result)):
        if result[column] is None:
            result[column] = before
        before = result[column]
    return result
