"""In which order the tensors of a file were read."""

from __future__ import annotations

import pytest

import handmade
from hftrace.analysis.time.read_order import ReadOrder, _order, read_by, read_call_bytes, storage_stall_ns


def order(*reads):
    """Each read is start, end and offset."""
    return _order(
        sorted((start, offset) for start, _, offset in reads),
        sorted((end, offset) for _, end, offset in reads),
    )


def test_one_after_the_other():
    assert order((0, 1, 0), (1, 2, 100), (2, 3, 200)) == ReadOrder(3, 0)
    assert order((0, 1, 200), (1, 2, 100), (2, 3, 0)) == ReadOrder(3, 2)
    assert order((0, 1, 0), (1, 2, 200), (2, 3, 100), (3, 4, 300)) == ReadOrder(4, 1)


def test_reads_of_several_threads_at_once_have_no_order():
    # A thread that gets the later tensor may be the first to begin.
    assert order((0, 5, 0), (1, 4, 200), (2, 6, 100)) == ReadOrder(3, 0)
    assert order((0, 5, 0), (1, 4, 200), (4, 6, 100)) == ReadOrder(3, 1)


@pytest.mark.parametrize(("reads", "back", "sequential"), [(20, 0, True), (20, 1, True), (20, 2, False)])
def test_what_the_kernel_makes_up_for(reads, back, sequential):
    assert ReadOrder(reads, back).sequential == sequential
    assert ReadOrder(reads, back).facts() == {"reads": reads, "back": back, "sequential": sequential}


def test_a_trace_without_these_counters_says_nothing():
    trace = handmade.healthy()
    assert (read_by(trace), read_call_bytes(trace), storage_stall_ns(trace)) == (None, None, None)
