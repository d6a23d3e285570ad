"""Tensors on their way to a device, on the axis of time: what the ledger knows of a device's memory."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

from hftrace.analysis.as_loaded import as_loaded
from hftrace.analysis.ledger.dtypes import asked_dtype, loaded_as
from hftrace.analysis.ledger.tensors import Batch, take, tensor_batches
from hftrace.analysis.memory.holding import ELSEWHERE
from hftrace.analysis.request import whole_model_device
from hftrace.analysis.time.spans import span_index
from hftrace.schema.model import Span
from hftrace.schema.trace import Trace

BLOCK_BYTES = 512
"""Torch's allocator rounds each tensor up to a multiple of this."""


class Arrival(NamedTuple):
    """A tensor on its way to a device: bytes, and times of the trace."""

    bytes: int
    """In the model."""
    read_bytes: int
    """As it was read: of a tensor that is quantised, in full precision."""
    started_ns: int
    """When the first of its sources was read."""
    appeared_ns: int
    """When it had been read, at the latest when it was placed."""
    placed_ns: int
    provenance: str | None

    @property
    def made(self) -> bool:
        """Whether it was made of what was read, which is given back after it was placed."""
        return self.provenance in ("converted", "quantized")

    def part(self, time_ns: int) -> int:
        """Returns the bytes of its sources that are there before all of them are.

        The ledger has the first and the last time: between them they are
        taken to come evenly.
        """
        if not self.made or not self.started_ns < time_ns < self.appeared_ns:
            return 0
        return self.read_bytes * (time_ns - self.started_ns) // (self.appeared_ns - self.started_ns)


class OnDevice(NamedTuple):
    """What the ledger has on a device when it has most there, until a span's end; bytes."""

    placed: int
    """Tensors in the model."""
    tensors: int
    timeless: int
    """Tensors in the model of which nobody knows when they came."""
    timeless_tensors: int
    unquantized: int
    """Read in full precision, and not quantised yet."""
    copies: int
    """Read or converted, and not in the model yet."""
    quantized_share: float
    """Of what is quantised by the load's end: the share that has been by then; 0 where nothing is."""
    at_end: int
    """What the ledger has there when the load ends, rounded up as the allocator does."""


def on_device(trace: Trace, load: Span, until: Span, device: str) -> OnDevice:
    """Returns what the ledger has on a device when it has most there, until the end of a span of a load."""
    trace = as_loaded(trace)
    timed: list[Arrival] = []
    timeless: list[int] = []
    for batch in tensor_batches(trace):
        for each in _arrivals(trace, batch, load, device):
            if isinstance(each, Arrival):
                timed.append(each)
            else:
                timeless.append(each)
    inside = [each for each in timed if each.started_ns <= until.end_ns]
    time, made = _fullest(inside, until)
    placed = [each for each in inside if each.placed_ns <= time and not (made and each.placed_ns == time)]
    waiting = [each for each in inside if each.placed_ns > time or (made and each.placed_ns == time)]
    unquantized = copies = 0
    for each in waiting:
        there = each.read_bytes if each.appeared_ns <= time else each.part(time)
        if each.provenance == "quantized":
            unquantized += there
        else:
            copies += there
    whole = sum(each.read_bytes for each in timed if each.provenance == "quantized")
    done = [each for each in inside if each.provenance == "quantized" and each.placed_ns <= time]
    return OnDevice(
        placed=sum(each.bytes for each in placed),
        tensors=len(placed),
        timeless=sum(timeless),
        timeless_tensors=len(timeless),
        unquantized=unquantized,
        copies=copies + made,
        quantized_share=sum(each.read_bytes for each in done) / whole if whole else 0.0,
        at_end=sum(-(-size // BLOCK_BYTES) * BLOCK_BYTES for size in (*(e.bytes for e in timed), *timeless)),
    )


def _fullest(inside: list[Arrival], until: Span) -> tuple[int, int]:
    """Returns when most is there, and how much a tensor that is made then adds to its sources."""
    inside.sort(key=lambda each: each.appeared_ns)
    times = [each.appeared_ns for each in inside]
    sums = [0, *accumulate(each.read_bytes for each in inside)]
    # What is quantised shrinks when it is placed; all else is as large in the model as it was read.
    shrunk = sorted((each for each in inside if each.provenance == "quantized"), key=lambda e: e.placed_ns)
    shrink_times = [each.placed_ns for each in shrunk]
    shrinks = [0, *accumulate(each.read_bytes - each.bytes for each in shrunk)]
    gathered = [each for each in inside if each.made and each.started_ns < each.appeared_ns]

    def held(time_ns: int, made: int) -> int:
        gone = (bisect_left if made else bisect_right)(shrink_times, time_ns)
        there = sums[bisect_right(times, time_ns)] - shrinks[gone]
        return there + made + sum(each.part(time_ns) for each in gathered)

    # Until all is there the sum only grows, but for what is there twice while a tensor is made of others.
    candidates = [
        (each.placed_ns, each.bytes)
        for each in inside
        if each.made and until.start_ns <= each.placed_ns <= until.end_ns
    ]
    return max([*candidates, (until.end_ns, 0)], key=lambda each: held(*each))


def _arrivals(trace: Trace, batch: Batch, load: Span, device: str) -> Iterable[Arrival | int]:
    """Yields the tensors of a batch that a load puts on a device; the size alone of those without a time."""
    tensor_class = batch.tensor_class
    if batch.rank != load.rank or tensor_class.provenance in ELSEWHERE or tensor_class.kind == "unused":
        return
    if not _is_here(trace, tensor_class.device, device):
        return
    alone = len(span_index(trace).load_rows) == 1
    column = trace.tensors.column
    asked = asked_dtype(trace)
    # What was handed out is there when it is asked for, at the latest.
    names = (
        "bytes",
        "stored_bytes",
        "read_start_ns" if batch.read else "asked_ns",
        "read_end_ns",
        "placed_ns",
    )
    for size, stored, begun, read, placed in zip(
        *(take(column(name), batch.rows) for name in names), strict=True
    ):
        if read is None and placed is None:
            if tensor_class.device is None or stored is not None:
                continue  # the load ended before its turn
            # What the model computes itself, or nobody saw arrive: of several loads, nobody knows which.
            if alone and size:
                yield size
            continue
        came = read if placed is None else placed
        if not load.start_ns <= came <= load.end_ns:
            continue  # another load's
        loaded = (
            loaded_as(stored or 0, tensor_class.stored_dtype, asked)[1] if tensor_class.stored_dtype else 0
        )
        if size is None:
            size = loaded
        done = placed if placed is not None else load.end_ns + 1
        appeared = done if read is None else min(read, done)
        started = appeared if begun is None else min(begun, appeared)
        size = size or stored or 0
        whole = max(loaded, size) if tensor_class.provenance == "quantized" else size
        yield Arrival(size, whole, started, appeared, done, tensor_class.provenance)


def _is_here(trace: Trace, place: str | None, device: str) -> bool:
    """Returns whether a tensor's device is this one: ``cuda`` without a number is the first."""
    if place is None:  # a model that was not finished is where it was asked
        return whole_model_device(trace) == device
    return place == device or (":" not in place and device == f"{place}:0")
