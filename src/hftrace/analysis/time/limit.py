"""What limited a load: its stages by their time, and what reading the weights was, as far as it was measured.

A stage is an activity, not a function: imports, requests that failed, reading weights. Reading is named by
what its threads did most of the time (:mod:`hftrace.analysis.time.split`): wait for storage, fault pages in,
cast. Where nothing proves which it was, it is called reading, and no more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.tensors import casts, tensor_sums
from hftrace.analysis.once import once
from hftrace.analysis.time.arrival import arrival, own_storage_bytes
from hftrace.analysis.time.phases import phases_of, wall_of
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.requests import failures
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.split import Split, own_split, weights_split
from hftrace.analysis.time.weights import (
    PLACING,
    goes_to_a_device,
    reader_waiting_ns,
    reading_ns,
    storage_bytes,
    weight_bytes,
    weight_files,
    weights_wall_ns,
)
from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace

MIN_NS = 200_000_000
"""Nobody asks what limited a load that took no longer."""
STORAGE_SHARE = 0.1
"""The share of the bytes read that must have come from storage before waiting is called waiting for it."""
MIN_FAULTS = 1000
"""Faults without which the kernel's time is not called page faults: at 1 µs each, they are nothing."""
HELPED = 0.5
"""The share of the waiting that other threads of the process must have worked, before it was for these."""
WAITED = 0.5
"""The share of reading in which the thread that places weights waited for those that read, at least, before
these are what limits."""
BUSY = 0.7
"""The share of the processors that a process must have used before it waited for no other one."""
FILES = ("resolve", "download")
"""Phases in which requests are sent."""


class Stage(NamedTuple):
    """One stage of the loads, with the imports around them."""

    name: str
    """A word for programs: ``imports``, ``retries``, ``storage``, ``arrival``, ``faults``, ``cast``,
    ``processors``, ``copy``, ``code``, ``weights`` (the cause is not known), or a phase."""
    words: str
    duration_ns: int
    share: float

    def facts(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {"stage": self.name, "duration_ns": self.duration_ns, "share": self.share}


@once
def stages(trace: Trace) -> list[Stage]:
    """Returns the stages of the loads and of the imports around them, the longest first."""
    index = span_index(trace)
    lane = index.main_lane
    loads = [row for row in index.load_rows if lane is None or index.lanes[row].rank == lane.rank]
    imports = [row for row in index.process_roots if index.phases[row] == "import"]
    rows = [*loads, *(row for row in imports if row not in loads)]
    whole = wall_of(index, rows)
    if not loads or not whole:
        return []
    times = phases_of(index, rows)
    lost = min(sum(host.lost_ns for host in failures(trace)), sum(times.get(phase, 0) for phase in FILES))
    reading = sum(times.pop(phase, 0) for phase in PLACING)
    found = [("imports", "imports", times.pop("import", 0))]
    if lost:
        found.append(("retries", "requests that failed, and the waits between them", lost))
    found.append(("files", "finding and fetching files", sum(times.pop(phase, 0) for phase in FILES) - lost))
    if reading:
        found.append((*reading_cause(trace), reading))
    times.pop("unattributed", None)
    found += [(phase, _WORDS.get(phase, phase), spent) for phase, spent in times.items()]
    made = [Stage(name, words, spent, spent / whole) for name, words, spent in found if spent > 0]
    return sorted(made, key=lambda stage: -stage.duration_ns)


_WORDS = {
    "instantiate": "building the model",
    "initialize": "initialising weights",
    "collect": "garbage collections",
    "warmup": "taking device memory beforehand",
    "prefetch": "reading files into the page cache ahead",
    "quantize": "quantising weights",
    "offload": "writing offloaded weights",
    "tokenizer": "the tokenizer",
    "config": "reading the configuration",
    "finalize": "finishing the model",
    "tie": "tying weights",
    "dispatch": "placing modules on devices",
}


def limit(trace: Trace) -> Stage | None:
    """Returns the longest stage; None where the whole is short, or did not end well."""
    found = stages(trace)
    if not found or trace.outcome.get("status", "ok") != "ok":
        return None
    return found[0] if sum(stage.duration_ns for stage in found) >= MIN_NS else None


def reads_weights(stage: Stage) -> bool:
    """Returns whether a stage is the reading of weights, by whatever cause."""
    return stage.name in _CAUSES


_CAUSES = frozenset({"storage", "arrival", "faults", "cast", "processors", "copy", "code", "weights"})


def reading_cause(trace: Trace, but: Collection[str] = ()) -> tuple[str, str]:
    """Returns name and words of what reading weights was, by the largest part of its split.

    Args:
        trace: The trace.
        but: Parts to leave out: ``queue`` says what it would have been on a machine with free processors.
    """
    placing = _is_placing(trace)
    split = limiting_split(trace)
    if split is None:
        return "weights", "reading weights"
    parts = {name: spent for name, spent in split.parts.items() if name != "unknown" and name not in but}
    largest = max(parts, key=lambda name: parts[name], default=None)
    if largest is None or split.unknown_ns > parts[largest]:
        return "weights", "reading weights"
    if placing and largest != "queue":
        # Readers were ahead of it: what they did took no time of the load's.
        return "code", "placing weights, tensor by tensor"
    if largest == "queue":
        process, count = _process(trace), natural(trace.environment.get("usable_cpu_count"))
        if process is None or not count or process.used_ns < BUSY * count * process.wall_ns:
            return "processors", "reading weights, for which no processor was free"
        # It took its processors from itself: what its threads did there is what counts.
        largest = "user" if process.user_ns > process.system_ns else "kernel"
    if largest == "waiting":
        return _waiting(trace, split)
    if largest == "kernel":
        mapped = any(file.format == "safetensors" for file in weight_files(trace))
        if split.used.minor_faults + split.used.major_faults >= MIN_FAULTS:
            return "faults", "page faults of reading weights" + ("" if mapped else ", and copies")
        return "code", "reading weights, in the kernel"
    return _computing(trace)


def _is_placing(trace: Trace) -> bool:
    """Returns whether the thread that places weights was the slower one, and not those that read for it.

    It was not where it waited: for a reader, as the ledger says, or as its own clock says for whatever else
    they share, such as the interpreter's lock.
    """
    reading = weight_reading(as_loaded(trace))
    spent, own = reading_ns(trace), own_split(trace)
    if not reading.reader_threads or spent is None:
        return False
    waited = reader_waiting_ns(trace) / spent if spent else 0.0
    return max(waited, own.share("waiting") if own is not None else 0.0) < WAITED


def limiting_split(trace: Trace) -> Split | None:
    """Returns the split of the threads that reading weights was limited by; None if unknown."""
    return own_split(trace) if _is_placing(trace) else weights_split(trace)


def _computing(trace: Trace) -> tuple[str, str]:
    changed = list(casts(tensor_sums(as_loaded(trace))))
    if changed:
        return "cast", "the cast {} → {}".format(*changed[0])
    return "code", "the loader's own work on weights"


def _waiting(trace: Trace, split: Split) -> tuple[str, str]:
    if (came := arrival(trace)) is not None:
        # Who asked waited for others. What these waited for is not known: they have no clocks.
        if came.in_background:
            return "arrival", "waiting for weights that other threads read ahead"
        return "arrival", f"waiting for weights that {came.handed_by} hands out"
    stored, moved = storage_bytes(trace), weight_bytes(trace)
    if "prefetch" in span_index(trace).phases:
        stored = own_storage_bytes(trace)  # the rest was fetched before, by others
    if stored and stored >= STORAGE_SHARE * max(1, moved.read + moved.mapped + moved.unknown):
        return "storage", "waiting for storage"
    if goes_to_a_device(trace):
        return "copy", "reading weights and copying them to a device"
    process = _process(trace)
    mine = split.used.user_ns + split.used.system_ns
    if process is not None and process.used_ns - mine >= HELPED * split.waiting_ns:
        name, words = _computing(trace)
        if name == "cast":
            return name, words
    return "weights", "reading weights: waiting, for what is not known"


class _Process(NamedTuple):
    """What all threads of the process used while weights were read."""

    wall_ns: int
    user_ns: int
    system_ns: int

    @property
    def used_ns(self) -> int:
        """Both together."""
        return self.user_ns + self.system_ns


def _process(trace: Trace) -> _Process | None:
    """Returns what the samples say of the process while weights were read; None where they are too few."""
    index, wall = span_index(trace), weights_wall_ns(trace)
    rows = [row for row, phase in enumerate(index.phases) if phase == "weights"]
    lane = index.main_lane
    if not rows or not wall or lane is None:
        return None
    start, end = min(index.starts[row] for row in rows), max(index.ends[row] for row in rows)
    known = [
        (sample.time_ns, sample.cpu_ns, sample.cpu_system_ns)
        for sample in trace.samples
        if sample.cpu_ns is not None
        and sample.cpu_system_ns is not None
        and sample.pid == lane.pid
        and start <= sample.time_ns <= end
    ]
    if len(known) < 2 or known[-1][0] - known[0][0] < wall // 2:
        return None
    spent, used, system = (max(0, after - before) for before, after in zip(known[0], known[-1], strict=True))
    return _Process(spent, max(0, used - system), system)
