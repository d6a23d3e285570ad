"""How much of a file is in the page cache, and how to change that."""

from __future__ import annotations

import os

import pytest

from evictable import PAGE, evictable_file, pages
from hftrace.system import page_cache


@pytest.fixture
def evictable(tmp_path):
    return evictable_file(tmp_path)


def test_cachestat_and_mincore_agree(evictable, monkeypatch):
    answers = pages(evictable)
    if None in answers:
        pytest.skip("this kernel has one of cachestat and mincore only")
    assert answers == [0, 0]
    # Without read-ahead: exactly the pages that were asked for.
    with open(evictable, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for number in (0, 17, 200):
            os.pread(file.fileno(), 1, number * PAGE)
        answers = pages(evictable)
    assert answers[0] == answers[1]
    assert 3 <= answers[0] < 200
    monkeypatch.setattr(page_cache, "_MINCORE_PIECE", 16 * PAGE)
    assert pages(evictable) == answers, "in pieces it is the same"
    page_cache.warm([evictable])
    assert pages(evictable) == [201, 201]
    for method in page_cache.METHODS:
        monkeypatch.setattr(page_cache, "METHODS", (method,))
        assert page_cache.resident_share(str(evictable)) == 1.0


def test_a_method_that_fails_leaves_it_to_the_next(evictable, monkeypatch):
    def refuses(file, size):
        raise OSError(38, "not here")

    monkeypatch.setattr(page_cache, "METHODS", (refuses, lambda file, size: 50))
    assert page_cache.resident_share(str(evictable)) == pytest.approx(0.25, abs=0.01)
    monkeypatch.setattr(page_cache, "METHODS", (refuses,))
    assert page_cache.resident_share(str(evictable)) is None
    assert page_cache.resident_share(str(evictable.parent / "not-there")) is None
