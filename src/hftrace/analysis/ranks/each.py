"""Of each rank of a job: what it holds of the model, what it read for it, and where its time went."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.once import once
from hftrace.analysis.time.moved import grown_in
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import natural, text
from hftrace.schema.trace import Trace
from hftrace.schema.vocabulary import READY_PHASES

WAITING = ("wait", "mesh")
"""Phases in which a rank does nothing but wait for others, or set up what it needs to."""


READING = ("weights", *READY_PHASES)
"""Phases in which the weights come from their files."""


class RankFacts(NamedTuple):
    """One rank. Bytes and times that were not seen are None."""

    rank: int
    pid: int | None
    machine: str | None
    """Equal for ranks that share memory and page cache; None where the trace does not say it."""
    status: str | None
    loads: int
    cut: bool
    """Whether one of them did not return: it failed, or the rank was killed in it."""
    load_ns: int
    """In outermost loads, waiting in them included."""
    wait_ns: int
    """At barriers, in loads and outside."""
    mesh_ns: int
    """Setting up process groups and meshes, in which ranks wait for one another too."""
    waited_in_loads_ns: int
    held_bytes: int
    """Of parameters and buffers on this rank, each once; of divided ones its part. What hooks keep elsewhere
    is not in it."""
    divided: int
    """How many of its tensors are parts."""
    tensors: int
    device_bytes: dict[str, int]
    """What of ``held_bytes`` is on accelerators."""
    anonymous_bytes: int | None
    """By how much its own memory had grown when the loads returned, without their imports."""
    file_bytes: int | None
    """The same of pages of all files, which all ranks of a machine share."""
    touched_bytes: int | None
    """Of its weight files: pages that it had mapped and touched when its loads returned. Shared as well."""
    storage_read_bytes: int | None
    """That came from storage while it read weights, or touched them after the load: 0 with a warm cache, or
    where another rank was first."""
    phases: dict[str, int]
    """Time by phase in its loads."""

    @property
    def busy_ns(self) -> int:
        """In loads, without waiting for other ranks."""
        return max(0, self.load_ns - self.waited_in_loads_ns)

    @property
    def committed_bytes(self) -> int | None:
        """Memory that is its alone: anonymous, and on accelerators."""
        if self.anonymous_bytes is None:
            return None
        return max(0, self.anonymous_bytes) + sum(self.device_bytes.values())

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {**self._asdict(), "busy_ns": self.busy_ns, "committed_bytes": self.committed_bytes}


@once
def ranks_of(trace: Trace) -> list[RankFacts]:
    """Returns the ranks of a trace in order; nothing where it has one alone."""
    index = span_index(trace)
    found = sorted({lane.rank for lane in index.lanes})
    if len(found) < 2:
        return []
    return [_facts(trace, rank) for rank in found]


@once
def whole_bytes(trace: Trace) -> int:
    """Returns what the models of all loads weigh, undivided: each tensor once, whoever holds parts of it."""
    wholes: dict[tuple[int, str], int] = {}
    for held in _held(trace):
        key = (held.load, held.name)
        wholes[key] = max(held.whole, wholes.get(key, 0))
    return sum(wholes.values())


class _Held(NamedTuple):
    rank: int
    load: int
    """Which of its rank's loads it is from, from 0."""
    name: str
    bytes: int
    whole: int
    divided: bool
    device: str


def _held(trace: Trace) -> Iterator[_Held]:
    """Yields the tensors that ranks hold, each object once."""
    rows = as_loaded(trace).tensors
    index = span_index(trace)
    order: dict[int, int] = {}
    counts: dict[int, int] = {}
    for row in index.load_rows:
        rank = index.lanes[row].rank
        order[index.ids[row]] = counts.get(rank, 0)
        counts[rank] = counts.get(rank, 0) + 1
    columns = (
        *("rank", "load", "name", "kind", "bytes", "shape", "global_shape", "device", "offload"),
        *("tied_to", "same_as"),
    )
    for values in zip(*(rows.column(name) for name in columns), strict=True):
        rank, load, name, kind, size, shape, whole, device, offload, tied, same = values
        if kind == "unused" or name is None or size is None or tied is not None or same is not None:
            continue
        if offload is not None or device is None or device == "meta":
            continue
        divided = whole is not None
        if divided and shape and math.prod(shape):
            total = size * math.prod(whole) // math.prod(shape)
        else:
            total = size
        yield _Held(rank, order.get(load, 0), name, size, total, divided, device)


@once
def _held_by_rank(trace: Trace) -> dict[int, list[_Held]]:
    found: dict[int, list[_Held]] = {}
    for held in _held(trace):
        found.setdefault(held.rank, []).append(held)
    return found


def _facts(trace: Trace, rank: int) -> RankFacts:
    index = span_index(trace)
    loads = [row for row in index.load_rows if index.lanes[row].rank == rank]
    inside = set(index.walk(loads))
    statuses = trace.spans.column("status")
    waits = dict.fromkeys(WAITING, 0)
    waited_inside = 0
    for row, phase in enumerate(index.phases):
        if phase not in waits or index.lanes[row].rank != rank:
            continue
        parent = index.parents[row]
        if parent is not None and index.phases[parent] in waits:
            continue  # a part of another wait
        waits[phase] += index.wall_ns(row)
        waited_inside += index.wall_ns(row) if row in inside else 0
    held = _held_by_rank(trace).get(rank, [])
    devices: dict[str, int] = {}
    for each in held:
        if each.device != "cpu":
            devices[each.device] = devices.get(each.device, 0) + each.bytes
    grown = grown_in(trace, loads) if loads else None
    process = _process_of(trace, rank)
    machine = process.get("machine")
    machine = machine if isinstance(machine, dict) else {}
    return RankFacts(
        rank=rank,
        pid=natural(process.get("pid")),
        machine=text(machine.get("clock")) or text(machine.get("host")),
        status=_status(trace, rank),
        loads=len(loads),
        cut=any(statuses[row] != "ok" for row in loads),
        load_ns=sum(index.wall_ns(row) for row in loads),
        wait_ns=waits["wait"],
        mesh_ns=waits["mesh"],
        waited_in_loads_ns=waited_inside,
        held_bytes=sum(each.bytes for each in held),
        divided=sum(each.divided for each in held),
        tensors=len(held),
        device_bytes=devices,
        anonymous_bytes=grown[0] if grown is not None else None,
        file_bytes=grown[1] if grown is not None else None,
        touched_bytes=_touched(trace).get(rank),
        storage_read_bytes=_storage_read(trace, rank),
        phases=index.phase_times(loads),
    )


def _storage_read(trace: Trace, rank: int) -> int | None:
    """Returns what came from storage while a rank read weights; None where that was not counted."""
    index, sizes = span_index(trace), trace.spans.column("storage_read_bytes")
    rows = [
        row
        for row, phase in enumerate(index.phases)
        if phase in READING
        and index.lanes[row].rank == rank
        and not _inside(index.parents, index.phases, row)
    ]
    known = [size for row in rows if (size := natural(sizes[row])) is not None]
    return sum(known) if known and len(known) == len(rows) else None


@once
def _touched(trace: Trace) -> dict[int, int | None]:
    """Returns by rank what it had touched of its weight files: of each what its last load said."""
    columns = (trace.files.column(name) for name in ("rank", "shard", "path", "name", "touched_bytes"))
    last: dict[int, dict[str, int | None]] = {}
    for rank, shard, path, name, size in zip(*columns, strict=True):
        if shard is not None:
            last.setdefault(rank, {})[path or name] = size
    return {
        rank: None if None in sizes.values() else sum(size or 0 for size in sizes.values())
        for rank, sizes in last.items()
    }


def _inside(parents: Sequence[int | None], phases: Sequence[str], row: int) -> bool:
    """Whether a span is in another one in which weights are read."""
    above = parents[row]
    while above is not None:
        if phases[above] in READING:
            return True
        above = parents[above]
    return False


def _process_of(trace: Trace, rank: int) -> dict[str, Any]:
    known = trace.header.get("processes")
    own = [
        process
        for process in (known if isinstance(known, list) else ())
        if isinstance(process, dict) and process.get("rank") == rank
    ]
    return next((process for process in own if process.get("job")), own[0] if own else {})


def _status(trace: Trace, rank: int) -> str | None:
    known = trace.outcome.get("by_rank")
    for ending in known if isinstance(known, list) else ():
        if isinstance(ending, dict) and ending.get("rank") == rank:
            return text(ending.get("status"))
    return None
