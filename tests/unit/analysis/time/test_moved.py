"""What moved and what was only mapped: a rate is of the first, and time that overlaps counts once."""

import dataclasses

import pytest

from handmade import MAIN, MB, MS, Builder
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.time.moved import Moved, moved_by_file, untouched_bytes
from hftrace.analysis.time.reading import weight_reading
from hftrace.analysis.time.weights import (
    goes_to_a_device,
    read_rate,
    reading_ns,
    storage_bytes,
    weight_bytes,
    weights_wall_ns,
)

ELEMENTS = 10_000_000
"""Of each tensor: 20 MB."""


def load(made, *, anonymous=0, file=0, start=0, end=1000, thread=MAIN, **more):
    """A load in which memory grows by that many bytes; returns the row of its weights span."""
    edges = {
        "rss_anon_start_bytes": 100 * MB,
        "rss_file_start_bytes": 50 * MB,
        "rss_anon_bytes": 100 * MB + anonymous,
        "rss_file_bytes": 50 * MB + file,
    }
    root = made.span(None, "load", "Model", start, end, thread=thread, **edges)
    return made.span(root, "weights", "weights", start + 100, end - 100, thread=thread, **more)


def tensor(made, number, weights, file="a.safetensors", **more):
    at = (200 + 10 * number) * MS
    times = {"read_start_ns": at, "read_end_ns": at + 5 * MS, "placed_ns": at + 6 * MS}
    made.tensor(f"layers.{number}.weight", [ELEMENTS], file=file, span=weights, **{**times, **more})


@pytest.mark.parametrize(
    ("more", "moved"),
    [
        ({"device": "cuda:0"}, Moved(read=20 * MB)),
        ({"device": "mps:0"}, Moved(read=20 * MB)),
        ({"dtype": "float32"}, Moved(read=20 * MB)),
        ({"provenance": "converted"}, Moved(read=20 * MB)),
        ({"provenance": "quantized"}, Moved(read=20 * MB)),
        ({}, Moved(mapped=20 * MB)),
        ({"device": "meta", "provenance": "offloaded", "offload": "cpu"}, Moved(mapped=20 * MB)),
        ({"device": "meta", "provenance": "offloaded", "offload": "disk"}, Moved(mapped=20 * MB)),
        # Cast on its way to the folder: it was read and written.
        (
            {"device": "meta", "provenance": "offloaded", "offload": "disk", "dtype": "float32"},
            Moved(read=20 * MB),
        ),
        # Whether a pickle's weights stayed in a map is not recorded.
        (
            {"device": "meta", "provenance": "offloaded", "offload": "disk", "file": "a.bin"},
            Moved(unknown=20 * MB),
        ),
    ],
)
def test_what_moves_a_tensor(more, moved):
    made = Builder()
    weights = load(made)
    tensor(made, 0, weights, **more)
    trace = made.trace()
    assert moved_by_file(trace) == {(0, more.get("file", "a.safetensors")): moved}
    (shard,) = weight_reading(trace).shards
    assert shard.moved == moved
    assert (read_rate(trace) is not None) is (moved.read > 0)


def test_weights_that_the_process_grew_by_were_copied():
    """As up to 4.49, without low_cpu_mem_usage."""
    made = Builder()
    weights = load(made, anonymous=80 * MB)
    for number in range(4):
        tensor(made, number, weights)
    trace = made.trace()
    assert weight_bytes(trace) == Moved(read=80 * MB)
    assert untouched_bytes(trace) == 0


def test_small_weights_are_hidden_in_what_a_process_grows_by_anyway():
    made = Builder()
    weights = load(made, anonymous=25 * MB)
    tensor(made, 0, weights)
    trace = made.trace()
    assert weight_bytes(trace) == Moved(unknown=20 * MB)
    assert untouched_bytes(trace) == 0
    assert read_rate(trace) is None


def test_pages_that_a_copy_to_a_device_touched_are_not_the_rest():
    """The file stays mapped for what is on the CPU: what it grew by is what went to the device."""
    made = Builder()
    weights = load(made, file=20 * MB)
    tensor(made, 0, weights, device="cuda:0")
    tensor(made, 1, weights)
    trace = made.trace()
    assert weight_bytes(trace) == Moved(read=20 * MB, mapped=20 * MB)
    (shard,) = weight_reading(trace).shards
    assert shard.moved.state == "partly"
    assert goes_to_a_device(trace)


def test_what_imports_took_is_no_weight():
    made = Builder()
    weights = load(made, anonymous=60 * MB)
    grown = {"rss_anon_bytes": 160 * MB, "rss_anon_start_bytes": 100 * MB}
    made.span(
        weights - 1,
        "import",
        "import x",
        10,
        50,
        **grown,
        rss_file_bytes=50 * MB,
        rss_file_start_bytes=50 * MB,
    )
    tensor(made, 0, weights)
    assert weight_bytes(made.trace()) == Moved(mapped=20 * MB)


def test_nobody_knows_what_a_killed_load_left_mapped():
    made = Builder()
    weights = load(made)
    tensor(made, 0, weights)
    made.outcome.update(status="killed")
    trace = made.trace()
    assert weight_bytes(trace) == Moved(unknown=20 * MB)
    assert read_rate(trace) is None


def test_a_rate_is_of_what_moved_over_the_time_of_reading():
    made = Builder()
    weights = load(made)
    made.span(weights, "warmup", "caching_allocator_warmup", 100, 300)
    made.span(weights, "initialize", "initialize_weights", 800, 850)
    made.span(weights, "collect", "garbage collection", 500, 550)
    tensor(made, 0, weights, device="cuda:0")
    tensor(made, 1, weights, device="meta", provenance="offloaded", offload="disk")
    trace = made.trace()
    assert weights_wall_ns(trace) == 800 * MS
    # Without the warm-up and the initialising; a collection interrupts the reading.
    assert reading_ns(trace) == 550 * MS
    assert read_rate(trace) == pytest.approx(20 * MB / 0.55)


def test_loads_that_overlap_count_their_time_once():
    made = Builder()
    for number, (start, end) in enumerate(((0, 700), (200, 1000))):
        weights = load(made, start=start, end=end, thread=number + 1)
        tensor(made, number, weights, device="cuda:0", thread=number + 1)
    trace = made.trace()
    assert weights_wall_ns(trace) == reading_ns(trace) == 800 * MS
    assert read_rate(trace) == pytest.approx(40 * MB / 0.8)


def test_each_rank_reads_for_itself():
    made = Builder()
    for rank in (0, 1):
        weights = load(made)
        for row in (weights - 1, weights - 2):
            made.spans[row] = dataclasses.replace(made.spans[row], rank=rank, pid=10 + rank)
        tensor(made, rank, weights, device=f"cuda:{rank}", rank=rank)
    trace = made.trace()
    assert weight_bytes(trace) == Moved(read=20 * MB)
    assert read_rate(trace) == pytest.approx(20 * MB / 0.8)


def test_a_shard_takes_as_long_as_one_of_its_tensors_is_read():
    """Read by two threads at once, and one tensor long before the others."""
    made = Builder()
    weights = load(made)
    for begun, ended in ((100, 110), (500, 520), (510, 530)):
        times = {"read_start_ns": begun * MS, "read_end_ns": ended * MS, "placed_ns": ended * MS}
        tensor(made, begun, weights, device="cuda:0", **times)
    (shard,) = weight_reading(made.trace()).shards
    assert shard.duration_ns == 40 * MS


# -- what limited those that read ---------------------------------------------------------------------


def waiting(*, resident=None, storage=None, device="cuda:0", **more):
    """A load that waits for a reader thread for 4 of 5 s; returns its finding R24."""
    made = Builder()
    weights = load(made, end=5000, storage_read_bytes=storage)
    made.tensor(
        "weight",
        [ELEMENTS],
        file="a.safetensors",
        span=weights,
        thread=9,
        device=device,
        read_start_ns=200 * MS,
        read_end_ns=4200 * MS,
        placed_ns=4300 * MS,
        convert_start_ns=200 * MS,
        convert_end_ns=4250 * MS,
        **more,
    )
    made.file("a.safetensors", size=20 * MB, shard=0, resident_before=resident)
    (finding,) = [each for each in findings(made.trace()) if each.rule == "R24"]
    return finding


@pytest.mark.parametrize("storage", [0, None])
def test_a_warm_load_is_not_told_to_warm_the_cache(storage):
    finding = waiting(resident=1.0, storage=storage)
    assert "page cache" not in finding.advice
    assert "reading pages or copying to a device; which of these is not recorded" in finding.evidence


def test_a_cold_load_whose_bytes_came_from_storage():
    finding = waiting(resident=0.0, storage=19 * MB)
    assert "Storage was a part of it: 19.0 MB of 20.0 MB came from storage." in finding.evidence
    assert "page cache" in finding.advice


def test_a_cache_that_did_not_keep_the_files():
    finding = waiting(resident=1.0, storage=19 * MB)
    assert "did not keep them" in finding.evidence
    assert "Read the files once before" not in finding.advice


@pytest.mark.parametrize("resident", [None, 0.0, 0.5])
def test_what_is_not_recorded_is_not_known(resident):
    finding = waiting(resident=resident)
    assert "What limited them is not known" in finding.evidence


def test_a_cast_is_named():
    finding = waiting(resident=1.0, storage=0, device="cpu", dtype="float32")
    assert "casting bfloat16 to float32" in finding.evidence
    assert finding.advice.startswith("Store the checkpoint in the dtype you ask for")


def test_storage_of_loads_that_overlap_is_the_process_s():
    made = Builder()
    for number, (start, end) in enumerate(((0, 700), (200, 1000))):
        weights = load(made, start=start, end=end, thread=number + 1, storage_read_bytes=30 * MB)
        tensor(made, number, weights, device="cuda:0")
    assert storage_bytes(made.trace()) == 30 * MB
