"""What reading weights was, by the clocks of the threads that read: processor time, kernel, waiting.

A thread's wall time less its processor time is waiting. Part of that is measured: time in which it was ready
and no processor was free. The rest may be storage, the interpreter's lock, or threads of torch that do a
part of its work: which of them, these clocks alone do not say. The kernel's part is page faults, reads and
copies. How the kernel divides processor time is coarse, so nothing is said of short stretches.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.once import once
from hftrace.analysis.time.overlap import overlapping_loads
from hftrace.analysis.time.reading import ShardReading, weight_reading
from hftrace.analysis.time.spans import Lane, SpanIndex, span_index
from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace

MIN_NS = 50_000_000
"""The kernel divides processor time by looking at ticks of up to 10 ms: of less than five it says little."""
MIN_SAMPLED_NS = 200_000_000
"""The same where the clocks were read from outside, in whole ticks, at both ends of several stretches."""
BORN_SLACK_NS = 20_000_000
"""When a thread was made is known in ticks, too."""


class Used(NamedTuple):
    """What threads used."""

    user_ns: int = 0
    system_ns: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    delay_ns: int | None = 0

    def __add__(self, other: object) -> Used:
        """Adds figure by figure; what is unknown of one is unknown of both."""
        assert isinstance(other, Used)
        delay = None if None in (self.delay_ns, other.delay_ns) else self.delay_ns + other.delay_ns  # type: ignore[operator]
        return Used(
            self.user_ns + other.user_ns,
            self.system_ns + other.system_ns,
            self.minor_faults + other.minor_faults,
            self.major_faults + other.major_faults,
            delay,
        )

    def __sub__(self, other: Used) -> Used:
        """Returns what came since ``other``."""
        delay = None
        if self.delay_ns is not None and other.delay_ns is not None:
            delay = max(0, self.delay_ns - other.delay_ns)
        return Used(
            max(0, self.user_ns - other.user_ns),
            max(0, self.system_ns - other.system_ns),
            max(0, self.minor_faults - other.minor_faults),
            max(0, self.major_faults - other.major_faults),
            delay,
        )


class Split(NamedTuple):
    """Where the time of threads went that read."""

    wall_ns: int
    """The time of all of them together."""
    used: Used
    """Of the part that was measured."""
    unknown_ns: int = 0
    """The part of ``wall_ns`` of which nobody knows."""
    threads: int = 1

    @classmethod
    def of(cls, busy_ns: int, used: Used, unknown_ns: int = 0, threads: int = 1) -> Split:
        """Returns the split of so much time in read calls.

        What threads ran besides counts as well. That they were ready besides does not: a pool whose work
        comes slowly is often woken, and waits for a processor more than it works.
        """
        ran = unknown_ns + used.user_ns + used.system_ns
        wall = max(busy_ns, ran)
        if used.delay_ns is not None:
            used = used._replace(delay_ns=min(used.delay_ns, wall - ran))
        return cls(wall, used, unknown_ns, threads)

    @property
    def waiting_ns(self) -> int:
        """Time in which they neither ran nor were ready to: for storage, a lock, other threads."""
        ready = self.used.user_ns + self.used.system_ns + (self.used.delay_ns or 0)
        return max(0, self.wall_ns - self.unknown_ns - ready)

    @property
    def parts(self) -> dict[str, int]:
        """The parts that add up to the whole, by name: waiting, queue, kernel, user, unknown."""
        parts = {
            "waiting": self.waiting_ns,
            "queue": self.used.delay_ns or 0,
            "kernel": self.used.system_ns,
            "user": self.used.user_ns,
            "unknown": self.unknown_ns,
        }
        return {name: spent for name, spent in parts.items() if spent}

    def share(self, part: str) -> float:
        """Returns the share of one part."""
        whole = sum(self.parts.values())
        return self.parts.get(part, 0) / whole if whole else 0.0

    def facts(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {
            "wall_ns": self.wall_ns,
            "threads": self.threads,
            "waiting_ns": self.waiting_ns,
            "queue_ns": self.used.delay_ns,
            "kernel_ns": self.used.system_ns,
            "user_ns": self.used.user_ns,
            "unknown_ns": self.unknown_ns,
            "minor_faults": self.used.minor_faults,
            "major_faults": self.used.major_faults,
        }


class _Clock(NamedTuple):
    """The readings of one thread's clocks, by the trace's time."""

    times: list[int]
    used: list[Used]


@once
def weights_split(trace: Trace) -> Split | None:
    """Returns where the time went of the threads that read the main rank's weights; None if unknown.

    Of a loader that reads on its own thread, that is all of the time of its shards, or of its weights.
    """
    index = span_index(trace)
    lane, reading = index.main_lane, weight_reading(as_loaded(trace))
    if lane is None or overlapping_loads(trace) is not None:
        return None
    busy = {thread: spent for (rank, thread), spent in reading.reader_threads.items() if rank == lane.rank}
    if not busy:
        return own_split(trace)
    clocks = _clocks(trace)
    used, unknown = Used(), 0
    for thread, spent in busy.items():
        mine = clocks.get((lane.rank, thread))
        if mine is None:
            unknown += spent
            continue
        used += mine.used[-1] - mine.used[0]
    if unknown > sum(busy.values()) // 2 or sum(busy.values()) < MIN_NS:
        return None
    return Split.of(sum(busy.values()), used, unknown, len(busy))


@once
def own_split(trace: Trace) -> Split | None:
    """Returns the same of the main thread, which places the weights, and may be the one that reads."""
    index = span_index(trace)
    lane = index.main_lane
    if lane is None or overlapping_loads(trace) is not None:
        return None
    rows = _outermost(index, "shard", lane) or _outermost(index, "weights", lane)
    splits = [split for row in rows if (split := _of_span(trace, row)) is not None]
    wall = sum(split.wall_ns for split in splits)
    if len(splits) < len(rows) or wall < MIN_NS:
        return None
    return Split.of(wall, sum((split.used for split in splits), Used()))


def _outermost(index: SpanIndex, phase: str, lane: Lane) -> list[int]:
    """Returns the spans of a phase on one thread that lie in no other of it."""
    nearest = index.nearest((phase,))
    rows = [row for row, each in enumerate(index.phases) if each == phase and index.lanes[row] == lane]
    return [row for row in rows if (above := index.parents[row]) is None or nearest[above] is None]


def _of_span(trace: Trace, row: int) -> Split | None:
    """Returns the split of a span by the clocks of its own thread."""
    span = trace.spans[row]
    figures = (span.cpu_user_ns, span.cpu_system_ns, span.minor_faults, span.major_faults)
    if None in figures:
        return None
    used = Used(*figures, natural(span.attributes.get("delay_ns")))  # type: ignore[arg-type]
    return Split.of(span.duration_ns, used)


def shard_split(trace: Trace, shard: ShardReading) -> Split | None:
    """Returns where the time of one file went; None where it is too short, or nothing is known of it.

    Between two readings of a thread's clocks in which it read other files too, the time is unknown.

    Args:
        trace: The trace.
        shard: A file of :func:`~hftrace.analysis.time.reading.weight_reading`.
    """
    index = span_index(trace)
    if shard.owner is None or overlapping_loads(trace) is not None:
        return None
    own = index.lanes[shard.owner]
    if index.phases[shard.owner] == "shard":
        if any(thread != own.thread for thread in shard.busy_ns):
            return None
        split = _of_span(trace, shard.owner)
        return split if split is not None and split.wall_ns >= MIN_NS else None
    clocks = _clocks(trace)
    if not clocks:
        return None
    used, unknown, key = Used(), 0, (shard.owner, shard.file)
    for thread, spent in shard.busy_ns.items():
        found, known = _by_file(trace).get((own.rank, thread), {}).get(key, (Used(), 0))
        used, unknown = used + found, unknown + max(0, spent - known)
    wall = sum(shard.busy_ns.values())
    if wall < MIN_SAMPLED_NS or unknown > wall // 2:
        return None
    return Split.of(wall, used, unknown, len(shard.busy_ns))


@once
def _by_file(trace: Trace) -> dict[tuple[int, int], dict[Any, tuple[Used, int]]]:
    """Returns what each thread with clocks used for each file, and the time of which that is known."""
    clocks = _clocks(trace)
    return {
        thread: _in_gaps(clocks[thread], reads) for thread, reads in _reads(trace).items() if thread in clocks
    }


def _in_gaps(clock: _Clock, reads: Sequence[tuple[int, int, Any]]) -> dict[Any, tuple[Used, int]]:
    """Returns what a thread used between readings with reads of one file alone, and their time, by file."""
    by_gap: dict[int, tuple[set[Any], int]] = {}
    for start, end, key in reads:
        first, last = bisect_left(clock.times, start + 1), bisect_left(clock.times, end)
        for gap in range(max(1, first), min(last + 1, len(clock.times))):
            inside = min(end, clock.times[gap]) - max(start, clock.times[gap - 1])
            keys, spent = by_gap.get(gap, (set(), 0))
            keys.add(key)
            by_gap[gap] = (keys, spent + max(0, inside))
    found: dict[Any, tuple[Used, int]] = {}
    for gap, (keys, spent) in by_gap.items():
        if len(keys) == 1:
            (key,) = keys
            used, known = found.get(key, (Used(), 0))
            found[key] = (used + (clock.used[gap] - clock.used[gap - 1]), known + spent)
    return found


@once
def _reads(trace: Trace) -> dict[tuple[int, int], list[tuple[int, int, tuple[int | None, str]]]]:
    """Returns the reads of each thread in order of time: start, end, and which file of which span."""
    loaded = as_loaded(trace)
    column = loaded.tensors.column
    threads, ranks = column("thread"), column("rank")
    starts, ends = column("read_start_ns"), column("read_end_ns")
    found: dict[tuple[int, int], list[tuple[int, int, tuple[int | None, str]]]] = {}
    for key, rows in weight_reading(loaded).rows.items():
        for row in rows:
            if threads[row] is not None and starts[row] is not None and ends[row] is not None:
                found.setdefault((ranks[row], threads[row]), []).append((starts[row], ends[row], key))
    return {thread: sorted(reads, key=lambda read: read[:2]) for thread, reads in found.items()}


@once
def _clocks(trace: Trace) -> dict[tuple[int, int], _Clock]:
    """Returns the readings of threads that read weights, by rank and thread; where their beginning is known.

    Of a thread of several spans those of all: what it did between them is not reading, and counts with it.
    """
    index, attributes = span_index(trace), trace.spans.column("attributes")
    found: dict[tuple[int, int], _Clock] = {}
    for row, phase in enumerate(index.phases):
        readers = attributes[row].get("readers") if phase == "weights" else None
        for facts in readers if isinstance(readers, list) else []:
            clock = _clock(facts, index.starts[row]) if isinstance(facts, Mapping) else None
            thread = natural(facts.get("thread")) if clock is not None else None
            if clock is None or thread is None:
                continue
            key = (index.lanes[row].rank, thread)
            before = found.get(key)
            found[key] = (
                clock if before is None else _Clock(before.times + clock.times, before.used + clock.used)
            )
    return found


def _clock(facts: Mapping[str, Any], start_ns: int) -> _Clock | None:
    """Returns the readings of one thread for one span; None where they do not say what it began with."""
    names = ("time_ns", "user_ns", "system_ns", "minor_faults", "major_faults", "delay_ns")
    columns = [facts.get(name) for name in names]
    if not all(isinstance(column, list) and len(column) == len(columns[0] or []) for column in columns):
        return None
    times: list[int] = []
    used: list[Used] = []
    for time, *figures, delay in zip(*columns, strict=True):
        if type(time) is not int or any(natural(figure) is None for figure in figures):
            return None
        if times and time <= times[-1] - start_ns:
            return None
        times.append(time + start_ns)
        user, system, minor, major = figures
        used.append(Used(user, system, minor, major, natural(delay)))
    born = facts.get("born_ns")
    if times and times[0] >= start_ns:
        if type(born) is not int or born < -BORN_SLACK_NS:
            return None  # what it had used before is not known
        times.insert(0, min(times[0] - 1, start_ns + max(0, born)))
        used.insert(0, Used(delay_ns=0 if used[0].delay_ns is not None else None))
    return _Clock(times, used) if len(times) > 1 else None
