"""What a planned load would hold, added up."""

import sys

import pytest

from hftrace.record.child.plan_ledger import KEPT_AT_MOST, kept_at_most


@pytest.mark.parametrize(
    ("environment", "most"),
    [
        ({}, KEPT_AT_MOST),
        ({"LD_PRELOAD": "/usr/lib/libtcmalloc_minimal.so.4"}, sys.maxsize),
        ({"LD_PRELOAD": "/usr/lib/libsomething.so"}, KEPT_AT_MOST),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000000"}, sys.maxsize),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, KEPT_AT_MOST),
        ({"MALLOC_MMAP_THRESHOLD_": "131072"}, KEPT_AT_MOST),
    ],
)
def test_another_allocator_may_keep_large_pieces(environment, most):
    assert kept_at_most(environment) == most
