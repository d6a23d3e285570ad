"""Whose reads brought the weights: those of the threads that asked for them, or of others, in the background.

A slice of a memory map is read by whoever asks for it, and the asking takes as long as the reading. Where
something reads ahead, bytes arrive before anybody asks: asking is waiting for those that read, however slow
their storage is. What handed the tensors out stands in the trace (``handed_by``); that other threads did read
is proven by what the kernel counts of each thread, or not said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.once import once
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.values import natural
from hftrace.schema.trace import Trace

MOST = 0.5
"""The share of the bytes that others must have read before it is said that they did: what a process reads
besides is no weight, and a part of the weights may be read otherwise."""
UNNAMED = "a class without a name"
BORN_SLACK_NS = 20_000_000
"""When a thread was made is known in ticks of 10 ms."""


class Arrival(NamedTuple):
    """How tensors came that something handed out which may have read before it was asked."""

    handed_by: str
    """The class of which most of them were, by its last name."""
    bytes: int
    """What they weigh in their files."""
    called_bytes: int | None
    """What calls returned to threads that neither asked for tensors nor placed them."""
    storage_bytes: int | None
    """What such threads made the kernel fetch from storage."""
    shared: bool | None = None
    """Whether one allocation on the CPU backs several tensors, or a part of one; None where nobody looked."""
    kept_bytes: int = 0
    """What such allocations hold besides the tensors, which keep them."""

    @property
    def in_background(self) -> bool:
        """Whether other threads are proven to have read most of it."""
        return self.bytes > 0 and max(self.called_bytes or 0, self.storage_bytes or 0) >= MOST * self.bytes

    @property
    def words(self) -> str:
        """Who read, in few words."""
        return f"read ahead by {self.handed_by}" if self.in_background else f"handed out by {self.handed_by}"

    def facts(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return {**self._asdict(), "in_background": self.in_background}


class _Bytes(NamedTuple):
    """What threads read; None where it is not known of one of them."""

    called: int | None = 0
    storage: int | None = 0

    def plus(self, other: _Bytes) -> _Bytes:
        return _Bytes(_sum(self.called, other.called), _sum(self.storage, other.storage))

    def less(self, other: _Bytes) -> _Bytes:
        return _Bytes(_rest(self.called, other.called), _rest(self.storage, other.storage))


@once
def arrival(trace: Trace) -> Arrival | None:
    """Returns how the main rank's weights came, where something handed them out; None for all other loads."""
    loaded = as_loaded(trace)
    lane = span_index(trace).main_lane
    if lane is None or not loaded.tensors.is_known("asked_ns"):
        return None
    columns = (loaded.tensors.column(name) for name in ("asked_ns", "rank", "stored_bytes"))
    sizes = [
        size or 0
        for asked, rank, size in zip(*columns, strict=True)
        if asked is not None and rank == lane.rank
    ]
    counts: dict[str, int] = {}
    shared: bool | None = None
    kept = 0
    for row in _outermost(trace, inside=True):
        noted = trace.spans.column("attributes")[row]
        handed, on_host = noted.get("handed_by"), _on_host(noted)
        for name, count in handed.items() if isinstance(handed, Mapping) else ():
            counts[str(name)] = counts.get(str(name), 0) + (natural(count) or 0)
        if on_host is not None:
            rest = max(0, on_host["bytes"] - on_host["tensors_bytes"])
            shared = bool(shared or rest or on_host["count"] < on_host["tensors"])
            kept += rest
    if not sizes or not counts:
        return None
    others = _process(trace).less(_own(trace))
    name = max(counts, key=lambda each: counts[each]).rpartition(".")[2]
    return Arrival(name if name.isidentifier() else UNNAMED, sum(sizes), *others, shared, kept)


def _on_host(noted: Mapping[str, Any]) -> dict[str, int] | None:
    """Returns what is known of the allocations on the CPU; None where nobody looked at them."""
    found = noted.get("allocations")
    figures = found.get("cpu") if isinstance(found, Mapping) else None
    names = ("count", "bytes", "tensors", "tensors_bytes")
    known = {name: natural(figures.get(name)) for name in names} if isinstance(figures, Mapping) else {}
    made = {name: value for name, value in known.items() if value is not None}
    return made if len(made) == len(names) else None


def comes_before(trace: Trace) -> bool:
    """Returns whether weights may have come before the loader asked, by no page fault of its own."""
    return arrival(trace) is not None or "prefetch" in span_index(trace).phases


def was_asking(trace: Trace) -> bool:
    """Returns whether a load that was killed waited for tensors that something hands out, and read none."""
    reading = trace.outcome.get("reading")
    entries = reading if isinstance(reading, list) else []
    return any(isinstance(each, Mapping) and each.get("handed") is True for each in entries)


@once
def own_storage_bytes(trace: Trace) -> int | None:
    """Returns what the threads that read and place weights fetched from storage; None if unknown."""
    return _own(trace).storage


def _outermost(trace: Trace, *, inside: bool = False) -> list[int]:
    """Returns the rows of the main rank's ``weights`` spans; without those that lie in another by default."""
    index = span_index(trace)
    lane, nearest = index.main_lane, index.nearest(("weights",))
    return [
        row
        for row, phase in enumerate(index.phases)
        if phase == "weights"
        and lane is not None
        and index.lanes[row].rank == lane.rank
        and (inside or (above := index.parents[row]) is None or nearest[above] is None)
    ]


def _process(trace: Trace) -> _Bytes:
    """Returns what the process read while weights were read."""
    total = _Bytes()
    storage, attributes = (trace.spans.column(name) for name in ("storage_read_bytes", "attributes"))
    for row in _outermost(trace):
        total = total.plus(_Bytes(natural(attributes[row].get("called_bytes")), storage[row]))
    return total


def _own(trace: Trace) -> _Bytes:
    """Returns the same of the threads that asked for tensors, or placed them."""
    total = _Bytes()
    attributes = trace.spans.column("attributes")
    for row in _outermost(trace):
        noted = attributes[row]
        total = total.plus(
            _Bytes(natural(noted.get("own_called_bytes")), natural(noted.get("own_storage_bytes")))
        )
        readers = noted.get("readers")
        for facts in readers if isinstance(readers, list) else ():
            if isinstance(facts, Mapping) and facts.get("thread") != span_index(trace).lanes[row].thread:
                total = total.plus(_Bytes(_grown(facts, "called_bytes"), _grown(facts, "storage_bytes")))
    return total


def _grown(facts: Mapping[str, Any], name: str) -> int | None:
    """Returns by how much a counter of one thread grew in a span; None where that is not known."""
    values, times, born = facts.get(name), facts.get("time_ns"), facts.get("born_ns")
    if not isinstance(values, list) or not isinstance(times, list) or not values or not times:
        return None
    first, last = natural(values[0]), natural(values[-1])
    if first is None or last is None or type(times[0]) is not int:
        return None
    if times[0] > 0:  # no reading of before the span: it must have been made in it
        if type(born) is not int or born < -BORN_SLACK_NS:
            return None
        first = 0
    return max(0, last - first)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _rest(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else max(0, whole - part)
