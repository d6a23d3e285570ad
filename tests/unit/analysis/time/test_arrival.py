"""Whose reads brought the weights: what is proven by the counters of threads, and what is not said."""

import pytest

from handmade import MAIN, MB, MS, Builder
from hftrace.analysis.time.arrival import arrival, comes_before, own_storage_bytes
from hftrace.analysis.time.limit import reading_cause
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.timeline import timeline
from hftrace.analysis.time.weights import weight_bytes

READER = 900
SIZE = 100 * MB
"""Of the two tensors together."""


def reader(called=0, storage=0, *, born=20 * MS, before=False):
    """The clocks of a thread that asks: it waits, and reads what is said."""
    times = [-5 * MS, 900 * MS] if before else [100 * MS, 900 * MS]
    first = 7 * MB if before else 0
    zeros = [0, 0]
    return {
        "thread": READER,
        "born_ns": born,
        "time_ns": times,
        **dict.fromkeys(("user_ns", "system_ns", "minor_faults", "major_faults", "delay_ns"), zeros),
        "called_bytes": [first, first + called],
        "storage_bytes": [first, first + storage],
    }


def read_ahead(*, called=SIZE, storage=0, own=0, readers=None, handed=True, ask=True, **more):
    """A load of 100 MB whose tensors are asked for by a thread of the loader's."""
    made = Builder()
    load = made.span(None, "load", "LlamaForCausalLM", 0, 1100)
    noted = {"called_bytes": called, "own_called_bytes": own, "own_storage_bytes": own}
    noted["readers"] = [reader()] if readers is None else readers
    if handed:
        noted["handed_by"] = {"some.where.PrefetchedTensor": 2}
    noted = {name: value for name, value in {**noted, **more}.items() if value is not None}
    weights = made.span(load, "weights", "weights", 50, 1050, storage_read_bytes=storage, attributes=noted)
    for number in range(2):
        made.tensor(
            f"layers.{number}.weight",
            [25 * MB],
            file="model.safetensors",
            thread=READER,
            span=weights,
            asked_ns=100 * MS if ask else None,
            read_start_ns=None if ask else 100 * MS,
            read_end_ns=(500 + 400 * number) * MS,
            placed_ns=(505 + 400 * number) * MS,
            convert_start_ns=(110 + 400 * number) * MS,
            convert_end_ns=(502 + 400 * number) * MS,
        )
    return made.trace()


def test_other_threads_have_read_it():
    trace = read_ahead(storage=90 * MB)
    came = arrival(trace)
    assert came.in_background
    assert came.words == "read ahead by PrefetchedTensor"
    assert (came.bytes, came.called_bytes, came.storage_bytes) == (SIZE, SIZE, 90 * MB)
    assert came.facts()["in_background"] is True
    assert reading_cause(trace) == ("arrival", "waiting for weights that other threads read ahead")
    assert weight_bytes(trace) == (SIZE, 0, 0)
    (shard,) = weight_reading(trace).shards
    assert (shard.start_ns, shard.duration_ns, shard.busy_ns) == (None, None, {})
    assert weight_reading(trace).reader_threads == {(0, READER): 1200 * MS}
    drawn = timeline(trace)
    assert drawn.reads == []
    assert drawn.waits == [(110 * MS, 500 * MS), (510 * MS, 900 * MS)]


@pytest.mark.parametrize(
    "how",
    [
        {"called": SIZE // 2 - 1},
        {"called": None},
        {"readers": [reader(called=SIZE)]},
        {"own": SIZE},
        {"readers": [reader(born=None)]},
        {"readers": [reader(born=-100 * MS)]},
        {"readers": [{**reader(), "called_bytes": None}]},
        {"readers": [{**reader(), "called_bytes": [0, None]}]},
        {"readers": [{**reader(), "time_ns": []}]},
    ],
)
def test_what_is_not_proven_is_not_said(how):
    """The asking threads have read it, or what they read is not known, or others read too little."""
    trace = read_ahead(**how)
    came = arrival(trace)
    assert not came.in_background
    assert came.words == "handed out by PrefetchedTensor"
    assert reading_cause(trace)[1] in (
        "waiting for weights that PrefetchedTensor hands out",
        "reading weights",
    )


def test_what_a_thread_had_read_before_the_load_is_not_of_it():
    assert arrival(read_ahead(readers=[reader(before=True)])).called_bytes == SIZE
    assert arrival(read_ahead(readers=[reader(3 * MB, before=True)])).called_bytes == SIZE - 3 * MB


def test_storage_alone_proves_it_too():
    """Something that reads by a way that counts no calls."""
    assert arrival(read_ahead(called=0, storage=60 * MB)).in_background
    assert not arrival(read_ahead(called=0, storage=40 * MB)).in_background


def test_slices_that_are_read_when_asked_have_no_arrival():
    trace = read_ahead(ask=False, handed=False, storage=90 * MB)
    assert arrival(trace) is None
    assert not comes_before(trace)
    assert own_storage_bytes(trace) == 0
    assert reading_cause(trace) == ("storage", "waiting for storage")
    assert len(timeline(trace).reads) == 1


def test_the_thread_of_the_span_is_counted_once():
    own = {**reader(5 * MB), "thread": MAIN}
    assert arrival(read_ahead(own=5 * MB, readers=[own])).called_bytes == SIZE - 5 * MB


@pytest.mark.parametrize(
    ("cpu", "shared", "kept"),
    [
        ({"count": 1, "bytes": SIZE, "tensors": 2, "tensors_bytes": SIZE}, True, 0),
        ({"count": 2, "bytes": SIZE + 7, "tensors": 2, "tensors_bytes": SIZE}, True, 7),
        ({"count": 2, "bytes": SIZE, "tensors": 2, "tensors_bytes": SIZE}, False, 0),
        ({"count": 2, "bytes": SIZE, "tensors": 2}, None, 0),
        ({"count": 2, "bytes": "x", "tensors": 2, "tensors_bytes": 0}, None, 0),
        ([], None, 0),
    ],
)
def test_allocations(cpu, shared, kept):
    came = arrival(read_ahead(allocations={"cpu": cpu}))
    assert (came.shared, came.kept_bytes) == (shared, kept)


@pytest.mark.parametrize("handed", [{"\x1b[31mred": 2}, {"a b": 2}, {"": 1}])
def test_a_class_is_named_by_what_is_a_name(handed):
    assert arrival(read_ahead(handed_by=handed)).handed_by == "a class without a name"


@pytest.mark.parametrize("handed", [[], "x", {}, {"a.B": "many"}])
def test_what_is_no_count_of_classes_is_no_arrival_or_a_name(handed):
    came = arrival(read_ahead(handed_by=handed))
    assert came is None or came.handed_by == "B"
