"""Shards, waiting and the page cache."""

import pytest

import handmade
from handmade import MB, MS, Builder
from hftrace.analysis.time.moved import untouched_bytes
from hftrace.analysis.time.reading import merge, weight_reading
from hftrace.analysis.time.spans import span_index
from hftrace.analysis.time.weights import (
    cache_state,
    read_rate,
    reader_waiting_ns,
    reading_ns,
    resident_share_before,
    weight_bytes,
)


def test_shards_of_5x_come_from_the_ledger():
    trace = handmade.sharded()
    shards = weight_reading(trace).shards
    assert [shard.file for shard in shards] == [handmade.shard_name(number, 3) for number in range(3)]
    assert sum(shard.tensors for shard in shards) == 200
    assert sum(shard.bytes for shard in shards) == weight_bytes(trace).read
    assert all(len(shard.busy_ns) == 2 for shard in shards)
    assert len(weight_reading(trace).reader_threads) == 2


def test_shards_of_4x_are_their_spans():
    trace = handmade.generation_a()
    assert [span_index(trace).phases[shard.owner] for shard in weight_reading(trace).shards] == ["shard"] * 3
    assert reader_waiting_ns(trace) == 0


def test_tensors_placed_after_their_shard_was_read_belong_to_it():
    trace = handmade.pickled()
    (shard,) = weight_reading(trace).shards
    assert span_index(trace).phases[shard.owner] == "shard"
    assert (shard.tensors, shard.duration_ns) == (36, None)


def test_waiting_is_what_the_placing_thread_spent_until_the_read_ended():
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    weights = made.span(root, "weights", "w", 0, 100)
    times = {"file": "f", "span": weights, "thread": 9}
    made.tensor(
        "a",
        [4],
        read_start_ns=0,
        read_end_ns=30 * MS,
        convert_start_ns=10 * MS,
        convert_end_ns=40 * MS,
        **times,
    )
    # Read long before it was needed: converting it is work, not waiting.
    made.tensor(
        "b",
        [4],
        read_start_ns=0,
        read_end_ns=20 * MS,
        convert_start_ns=50 * MS,
        convert_end_ns=70 * MS,
        **times,
    )
    # Two tensors of one conversion: the time counts once.
    made.tensor(
        "c",
        [4],
        read_start_ns=0,
        read_end_ns=30 * MS,
        convert_start_ns=10 * MS,
        convert_end_ns=40 * MS,
        **times,
    )
    assert reader_waiting_ns(made.trace()) == 20 * MS


def test_reads_of_the_placing_thread_itself_are_no_waiting():
    made = Builder()
    weights = made.span(None, "weights", "w", 0, 100)
    made.tensor(
        "a", [4], file="f", span=weights, read_start_ns=0, read_end_ns=9, convert_start_ns=0, convert_end_ns=9
    )
    assert reader_waiting_ns(made.trace()) == 0


def test_a_tensor_without_a_span_is_found_by_its_time():
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    made.span(root, "weights", "one", 0, 40)
    made.span(root, "weights", "two", 50, 90)
    made.tensor("a", [4], file="f", read_start_ns=60 * MS, read_end_ns=61 * MS)
    (shard,) = weight_reading(made.trace()).shards
    assert shard.owner == 2


def test_union_of_stretches():
    assert merge([(5, 9), (0, 3), (2, 4), (9, 10)]) == [(0, 4), (5, 10)]


@pytest.mark.parametrize(
    ("share", "state"),
    [(None, None), (0.0, "cold"), (0.05, "cold"), (0.5, "partly"), (0.95, "warm"), (1.0, "warm")],
)
def test_cache_state(share, state):
    assert cache_state(share) == state


def test_resident_share_is_weighted_by_size():
    made = Builder()
    made.file("a", size=900, shard=0, resident_before=1.0)
    made.file("b", size=100, shard=1, resident_before=0.0)
    made.file("config.json", size=10**9, resident_before=0.0)
    assert resident_share_before(made.trace()) == pytest.approx(0.9)


def test_mapped_weights_have_no_rate():
    trace = handmade.lazy()
    assert untouched_bytes(trace) > 2_000 * MB
    assert read_rate(trace) is None


def test_weights_that_were_read_are_not_lazy():
    trace = handmade.sharded()
    assert untouched_bytes(trace) == 0
    assert read_rate(trace) == pytest.approx(weight_bytes(trace).read / (reading_ns(trace) / 1e9))


@pytest.mark.parametrize(("automatic", "reading"), [(True, 100 * MS), (False, 40 * MS)])
def test_a_collection_that_somebody_called_for_is_no_reading(automatic, reading):
    made = Builder()
    root = made.span(None, "load", "A", 0, 100)
    weights = made.span(root, "weights", "w", 0, 100)
    made.span(weights, "collect", "x", 40, 100, attributes={"automatic": automatic, "collected": 0})
    assert reading_ns(made.trace()) == reading
