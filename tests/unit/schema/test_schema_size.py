"""100,000 tensors stay practical; the times are printed (pytest -s), the sizes are limits."""

import time

import pytest

from hftrace import Trace

MB = 1_000_000


@pytest.fixture(scope="module")
def large(make_trace):
    return make_trace(tensors=100_000, shards=40, samples=3000)


@pytest.mark.parametrize(("name", "limit"), [("large.json", 15 * MB), ("large.json.gz", 2 * MB)])
def test_a_large_trace_stays_small(large, tmp_path, name, limit):
    path = tmp_path / name
    started = time.perf_counter()
    large.save(path)
    written = time.perf_counter()
    trace = Trace.open(path)
    read = time.perf_counter()
    rows = list(trace.tensors)
    iterated = time.perf_counter()
    size = path.stat().st_size
    print(
        f"\n{name}: {len(rows):,} tensors, {size / MB:.2f} MB, written in {written - started:.2f} s, "
        f"read in {read - written:.2f} s, rows made in {iterated - read:.2f} s"
    )
    assert size < limit
    assert rows == list(large.tensors)
    assert list(trace.samples) == list(large.samples)
    assert list(trace.spans) == list(large.spans)
    assert len({tensor.name for tensor in rows}) > 100_000
