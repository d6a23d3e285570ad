"""Where the events of a trace go in Chrome's format: numbers and names of processes and threads.

The numbers are our own, because viewers put what has one number together: processes of two machines may
share theirs. The real ones are in the names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from hftrace.analysis.time.process_names import process_names
from hftrace.analysis.time.spans import Lane, span_index
from hftrace.analysis.values import integer, text
from hftrace.export.chrome_events import Track
from hftrace.export.lanes import import_tracks, thread_title
from hftrace.schema.trace import Trace

SESSION, FINDINGS, SPANS, IMPORTS, READS = range(-2, 3)
"""Kinds of tracks of a process, in the order in which they stand."""


class Process(NamedTuple):
    """A process of a trace."""

    rank: int
    pid: int | None
    """None where the trace does not say it."""


class Places:
    """Gives each process and thread of a trace its number in a file.

    Args:
        trace: The trace.
        numbers: Where they come from: none is there twice in a file.
        prefix: What names of processes begin with, where there are several traces in the file.
        origin_ns: The time of the trace at which the viewer's clock stands at zero.
    """

    def __init__(self, trace: Trace, numbers: Iterator[int], prefix: str, origin_ns: int) -> None:
        self._trace, self._numbers, self._prefix, self._origin_ns = trace, numbers, prefix, origin_ns
        main = span_index(trace).main_lane
        lanes = span_index(trace).lanes
        self.main = Process(0, None) if main is None else Process(main.rank, main.pid)
        """The process of the first load."""
        known = dict.fromkeys([(lane.rank, lane.pid) for lane in lanes])
        known |= dict.fromkeys((tracks.lane.rank, tracks.lane.pid) for tracks in import_tracks(trace))
        self._ranks = {pid: rank for rank, pid in known}
        self._of_thread = {(lane.rank, lane.thread): Process(lane.rank, lane.pid) for lane in lanes}
        processes = trace.header.get("processes")
        for entry in processes if isinstance(processes, list) else []:
            said = entry if isinstance(entry, dict) else {}
            rank, pid = integer(said.get("rank")), integer(said.get("pid"))
            if rank is not None and pid is not None:
                self._ranks.setdefault(pid, rank)
        self._tracks: dict[Process, tuple[int, Track]] = {}
        self._has_main: set[Process] = set()
        self._naming: list[str] = []

    def naming(self) -> list[str]:
        """Returns the events that name what was asked for since the last time."""
        naming, self._naming = self._naming, []
        return naming

    def of_sample(self, pid: int | None) -> Process:
        """Returns the process that a sample is of; where it does not say it, the only one, or one unknown."""
        if pid is not None:
            return Process(self._ranks.get(pid, 0), pid)
        return self.main if len(self._ranks) < 2 else Process(0, None)

    def of_reader(self, rank: int, pid: int | None, thread: int | None) -> Process:
        """Returns the process of a thread; where it is not known, the main one of the rank, or its first."""
        if pid is not None:
            return Process(rank, pid)
        found = None if thread is None else self._of_thread.get((rank, thread))
        if found is not None:
            return found
        if rank == self.main.rank:
            return self.main
        return Process(rank, min((pid for pid, of in self._ranks.items() if of == rank), default=None))

    def process(self, process: Process) -> Track:
        """Returns where events of a whole process go."""
        return self._numbered(process)[1]

    def thread(self, process: Process, kind: int, name: str, order: int = 0, is_main: bool = False) -> Track:
        """Returns a new track of a process.

        Args:
            process: The process.
            kind: One of the kinds of tracks.
            name: What it is called.
            order: Its place among tracks of its kind.
            is_main: Whether it is the process's main thread.
        """
        number, track = self._numbered(process)
        if is_main and process not in self._has_main:
            self._has_main.add(process)
        else:
            track = Track(number, next(self._numbers), self._origin_ns)
        self._naming += [
            track.about("thread_name", {"name": name}),
            # A number of its own for each, as viewers sort those of the same by their numbers.
            track.about("thread_sort_index", {"sort_index": kind * 100_000 + order}),
        ]
        return track

    def lane(self, lane: Lane, kind: int, prefix: str, order: int) -> Track:
        """Returns the track of a thread that is known."""
        is_main = lane == span_index(self._trace).main_lane or lane.thread == lane.pid
        title = prefix + thread_title(self._trace, lane.thread)
        return self.thread(Process(lane.rank, lane.pid), kind, title, order, is_main and kind == SPANS)

    def _numbered(self, process: Process) -> tuple[int, Track]:
        if process not in self._tracks:
            number = next(self._numbers)
            # A viewer takes the thread with the process's number for its main thread.
            track = Track(number, number, self._origin_ns)
            self._tracks[process] = (number, track)
            rank, pid = process
            real: dict[str, Any] = {"rank": rank, "pid": pid}
            labels = ", ".join(f"{key} {value}" for key, value in real.items() if value is not None)
            self._naming += [
                track.about("process_name", {"name": self._prefix + self._title(process), **real}),
                track.about("process_labels", {"labels": labels}),
                track.about("process_sort_index", {"sort_index": number}),
            ]
        return self._tracks[process]

    def _title(self, process: Process) -> str:
        rank, pid = process
        name = None if pid is None else process_names(self._trace).get((rank, pid))
        if name is None:
            command = text(self._trace.header.get("command")) if process == self.main else None
            name = "process" if command is None else f"hftrace {command}"
        return name if pid is None or name == f"process {pid}" else f"{name}, process {pid}"
