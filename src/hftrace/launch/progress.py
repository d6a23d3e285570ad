"""Says what a running load is doing, for the live view and the watchdog."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hftrace.analysis.live import EndedPhase, LiveLimit, LiveMemory, LiveProcess, LiveState
from hftrace.launch.shard_progress import ShardProgress
from hftrace.launch.tail import JournalTail, last_line
from hftrace.replay.spans import SHORT_NS
from hftrace.schema import codec, journal, lines

_PLAIN_KINDS = frozenset(
    {journal.HEADER, journal.HOOK, journal.BEGIN, journal.END, journal.CHECKPOINT, journal.DEVICE}
)
_TENSOR_KINDS = frozenset(
    {journal.SLICES, journal.KEYS, journal.READS, journal.PLACES, journal.MODULES, journal.MOVES}
)


class JournalFollower:
    """Keeps a :class:`~hftrace.analysis.live.LiveState` from what a run's journals and samples say.

    Args:
        run: The run's directory.
        tail: Of its journals.
        tensors: Whether to follow tensors and bytes as well: spans alone are what the watchdog needs.
    """

    def __init__(self, run: Path, tail: JournalTail, *, tensors: bool = True) -> None:
        self.state = LiveState()
        self._run = run
        self._tail = tail
        self._kinds = _PLAIN_KINDS | _TENSOR_KINDS if tensors else _PLAIN_KINDS
        self._followed: dict[Path | None, _Followed] = {}
        tail.listen(self._add)

    def poll(self) -> LiveState:
        """Brings the state up to date, or nearer to it where much has been added."""
        self._tail.poll()
        for followed in self._followed.values():
            followed.sample(self._run)
        return self.state

    @property
    def processes(self) -> list[LiveProcess]:
        """What is known of each process that has a journal, by rank."""
        found = [followed.process for followed in self._followed.values()]
        return sorted(found, key=lambda each: (each.rank, each.pid))

    @property
    def is_loading(self) -> bool:
        """Whether a load is open, as far as the journals have been read."""
        return any(followed.is_loading for followed in self._followed.values())

    def waiting_for(self) -> list[str]:
        """Returns the hosts whose answers are waited for."""
        return sorted({host for followed in self._followed.values() for host in followed.process.waits_for})

    def _add(self, raw: bytes) -> None:
        # Most lines are of other kinds, and long.
        if codec.kind_of(raw) not in self._kinds:
            return
        followed = self._followed.get(self._tail.path)
        if followed is None:
            followed = self._followed[self._tail.path] = _Followed(self.state.ended)
            followed.process.rank, followed.process.pid = _whose(self._tail.path)
            self.state.processes = self.processes
        # A damaged line makes the view wrong, and is no reason to end a load.
        with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
            followed.apply(codec.parse(raw))


def limit_of(asked: int | None, limits: Mapping[str, int | None]) -> LiveLimit | None:
    """Returns the limit that a load's memory meets first: what was asked for, a control group's, the RAM.

    Args:
        asked: The most anonymous memory, as an option said.
        limits: As :meth:`hftrace.launch.ending.evidence.OomCounters.limits` has them.
    """
    known = [("option", asked), ("cgroup", limits.get("cgroup_bytes")), ("ram", limits.get("ram_bytes"))]
    return next((LiveLimit(size, kind) for kind, size in known if size), None)


def _whose(path: Path | None) -> tuple[int, int]:
    """Returns the rank and the number of the process that writes a journal, by the file's name."""
    stem = "" if path is None else path.name.removeprefix(journal.JOURNAL_PREFIX)
    rank, _, pid = stem.removesuffix(journal.SUFFIX).partition("-")
    return int(rank) if rank.isdigit() else 0, int(pid) if pid.isdigit() else 0


class _Followed:
    """One journal: its open spans, and what they say of the process that writes it."""

    def __init__(self, ended: list[EndedPhase]) -> None:
        self.process = LiveProcess()
        self._ended = ended
        self._open: dict[int, lines.Begin] = {}
        self._stack: list[int] = []
        """Open spans of the main thread."""
        self._thread: int | None = None
        self._before: dict[int, str] = {}
        self._after: dict[int, str] = {}
        self._hosts: dict[int, str] = {}
        """For each open span that waits for an answer, or for the time to ask again: which host's."""
        self._asked_by: dict[int, int | None] = {}
        """For each open request, the span that sent it."""
        self._shards = ShardProgress()
        self._weights_span: int | None = None
        self._files: dict[int, str] = {}
        """For each open span that goes through a shard, which."""
        self._seen: LiveMemory | None = None
        self._grown = {"anonymous": 0, "file": 0}
        self._device_start: dict[str, int] = {}
        self._storage: list[int] = []
        self._on: dict[type, Callable[[Any], None]] = {
            lines.Hook: self._hook,
            lines.Begin: self._begin,
            lines.End: self._end,
            lines.Device: self._device,
            lines.Checkpoint: self._checkpoint,
            lines.Slices: lambda line: self._shards.add_slices(line),
            lines.Keys: lambda line: self._shards.add_keys(line),
            lines.Events: self._events,
        }

    @property
    def is_loading(self) -> bool:
        return any(begin.phase == "load" for begin in self._open.values())

    def apply(self, line: lines.Line | None) -> None:
        """Takes in one line."""
        take = self._on.get(type(line))
        if take is None:
            return
        take(line)
        process = self.process
        process.shards = self._shards.shards
        done = len(self._shards.placed)
        process.tensors_done = done if process.tensors_total is None else min(done, process.tensors_total)
        process.waits_for = sorted(set(self._hosts.values()))
        if self._open:
            innermost = self._open[max(self._open)]
            process.phase, process.name = innermost.phase, innermost.name

    def sample(self, run: Path) -> None:
        """Takes memory from the last whole line of the samples, which are newer than any edge."""
        raw = last_line(journal.samples_path(run, self.process.pid))
        line = codec.parse(raw) if raw is not None else None
        if not isinstance(line, lines.Sample) or line.anonymous is None:
            return
        memory = LiveMemory(line.anonymous, line.file or 0, line.shared or 0)
        self.process.memory = memory
        if line.storage_read is not None:
            self._storage = [*self._storage[:1], line.storage_read]
        if self._seen is not None and self.process.weights_ns is not None:
            # What was let go of meanwhile moved all the same: growth is added up.
            self._grown["anonymous"] += max(0, memory.anonymous - self._seen.anonymous)
            self._grown["file"] += max(0, memory.file - self._seen.file)
            self._moved()
        self._seen = memory

    def _moved(self) -> None:
        devices = sum(
            max(0, size - self._device_start.get(name, 0)) for name, size in self.process.device_bytes.items()
        )
        storage = self._storage[-1] - self._storage[0] if self._storage else 0
        self.process.moved_bytes = max(self.process.moved_bytes, *self._grown.values(), devices, storage)

    def _hook(self, line: lines.Hook) -> None:
        self._before[line.number] = line.phase_before
        self._after[line.number] = line.phase_after

    def _begin(self, line: lines.Begin) -> None:
        if line.thread == self._thread or self._thread is None:
            self._thread = line.thread
            self._charge(line.time_ns, self._gap_before(line))
            self._stack.append(line.span)
        self._open[line.span] = line
        host = line.attributes.get("host")
        if line.attributes.get("request") is True and isinstance(host, str):
            self._asked_by[line.span] = line.parent
            self._hosts[line.span] = host
        if line.phase == "load" and line.parent is None:
            self._reset()
        if line.phase == "weights" and self.process.weights_ns is None:
            self._begin_weights(line)
        total = line.attributes.get("tensors")
        if type(total) is int and total > 0:
            self.process.tensors_total = total
        elif self.process.tensors_total is None:
            self.process.tensors_total = self._shards.keys
        file = line.attributes.get("file")
        if line.phase == "shard" and isinstance(file, str):
            self._files[line.span] = file
            self._shards.begin_shard(file, line.time_ns)
        self._readings(line.edge)

    def _end(self, line: lines.End) -> None:
        begin = self._open.get(line.span)
        if line.span in self._stack:
            at = self._stack.index(line.span)
            hook = None if begin is None else begin.hook
            is_load = begin is not None and begin.phase == "load" and line.status == "ok"
            self._charge(line.time_ns, self._after.get(hook or 0, "") if is_load else "")
            del self._stack[at:]
        self._open.pop(line.span, None)
        self._answered(line)
        if (file := self._files.pop(line.span, None)) is not None and file not in self._files.values():
            self._shards.end_shard(file, line.time_ns)
        self._readings(line.edge)
        if line.span == self._weights_span:
            self._weights_span = self.process.weights_ns = None
        if begin is not None:
            self._note_end(begin, line)
        if not self._open:
            self._stack.clear()
            self.process.phase, self.process.name = "after", "the load"

    def _note_end(self, begin: lines.Begin, line: lines.End) -> None:
        if begin.phase == "load":
            self.process.loads += begin.parent is None
            return
        above = self._open.get(begin.parent) if begin.parent is not None else None
        if begin.thread == self._thread and (above is None or above.phase == "load"):
            edge = line.edge
            memory = self.process.memory
            if edge.anonymous is not None:
                memory = LiveMemory(edge.anonymous, edge.file or 0, edge.shared or 0)
            self._ended.append(EndedPhase(begin.phase, begin.name, line.time_ns - begin.time_ns, memory))

    def _reset(self) -> None:
        """Another load begins."""
        self._weights_span, self.process.weights_ns, self.process.moved_bytes = None, None, 0
        self.process.tensors_total = None
        self._shards, self._files = ShardProgress(), {}

    def _checkpoint(self, line: lines.Checkpoint) -> None:
        # The loader may name the same files more than once.
        if line.paths != self._shards.paths:
            self._shards = ShardProgress(line)

    def _begin_weights(self, line: lines.Begin) -> None:
        self._weights_span, self.process.weights_ns = line.span, line.time_ns
        self._grown = {"anonymous": 0, "file": 0}
        self._device_start = dict(self.process.device_bytes)
        self._storage = self._storage[-1:]
        self._shards.begin()

    def _charge(self, time_ns: int, gap: str) -> None:
        """Gives the main thread's time since the last edge to the phase that it was in.

        Args:
            time_ns: Of this edge.
            gap: What the body of a load did meanwhile, where that is known.
        """
        process = self.process
        above = self._open.get(self._stack[-1]) if self._stack else None
        if above is not None and process.since_ns is not None:
            phase = gap if above.phase == "load" and gap else above.phase
            spent = process.phases.get(phase, 0) + max(0, time_ns - process.since_ns)
            process.phases[phase] = spent
        process.since_ns = time_ns

    def _gap_before(self, line: lines.Begin) -> str:
        known = self._before.get(line.hook or 0, "")
        if known or line.phase == "load" or self.process.since_ns is None:
            return known
        return line.phase if line.time_ns - self.process.since_ns <= SHORT_NS else ""

    def _events(self, line: lines.Events) -> None:
        items = line.items
        rows = [iter(items)] * (4 if line.kind == journal.MOVES else 3)
        if line.kind == journal.READS:
            self._shards.add_reads(zip(*rows, strict=False))
        elif line.kind == journal.PLACES:
            self._shards.add_placed(zip(*rows, strict=False))
        elif line.kind == journal.MODULES:
            self._shards.add_modules(zip(*rows, strict=False))
        elif line.kind == journal.MOVES:
            self._shards.add_placed((name, start, end) for name, _, start, end in zip(*rows, strict=False))

    def _device(self, line: lines.Device) -> None:
        self.process.device_bytes |= {name: each.allocated for name, each in line.devices.items()}

    def _readings(self, edge: lines.Edge) -> None:
        if edge.devices:
            self.process.device_bytes |= {name: each.allocated for name, each in edge.devices.items()}

    def _answered(self, line: lines.End) -> None:
        """Where a request ends, its download waits for the body; after a failure all wait to ask again."""
        host = self._hosts.pop(line.span, None)
        asker = self._asked_by.pop(line.span, None)
        if host is None or asker is None or asker not in self._open:
            return
        if line.status != "ok" or self._open[asker].phase == "download":
            self._hosts[asker] = host
        else:
            self._hosts.pop(asker, None)
