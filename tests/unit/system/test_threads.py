"""What the kernel counts of a thread, held against what the thread did."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time

import pytest

from hftrace.system.threads import LastWords, clocks_of, own_clocks, own_delay_ns

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux counts by thread")
SPENT_NS = 150_000_000
PAGES = 2000


def spend(nanoseconds: int = SPENT_NS) -> None:
    until = time.thread_time_ns() + nanoseconds
    while time.thread_time_ns() < until:
        pass


def in_a_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_threads_own_clocks_do_not_hold_what_others_did():
    before = own_clocks()
    in_a_thread(spend)
    after = own_clocks()
    assert sum(after[:2]) - sum(before[:2]) < SPENT_NS // 2
    spend()
    assert 0.95 * SPENT_NS <= sum(own_clocks()[:2]) - sum(after[:2]) < 2 * SPENT_NS


def test_faults_are_counted():
    _, _, before, _ = own_clocks()
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE) as memory:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(PAGES):
            memory[page * mmap.PAGESIZE] = 1
    _, _, after, _ = own_clocks()
    assert after - before >= PAGES


def test_clocks_of_another_thread():
    ready, done = threading.Event(), threading.Event()
    numbers = []

    def work():
        spend()
        numbers.append(threading.get_native_id())
        ready.set()
        done.wait(10)

    began = time.monotonic_ns()
    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(10)
    found = clocks_of(numbers[0])
    done.set()
    thread.join()
    assert 0.9 * SPENT_NS <= found.user_ns + found.system_ns < 2 * SPENT_NS
    assert found.born_ns == pytest.approx(began, abs=100_000_000)
    assert began < found.time_ns < time.monotonic_ns()


def test_a_thread_that_is_gone_has_none():
    numbers = []
    in_a_thread(lambda: numbers.append(threading.get_native_id()))
    deadline = time.monotonic() + 5
    while clocks_of(numbers[0]) is not None and time.monotonic() < deadline:
        time.sleep(0.01)  # the kernel is a little behind the join
    assert clocks_of(numbers[0]) is None


def test_a_thread_says_its_last_words_when_it_ends():
    local = threading.local()
    said = []

    def work():
        words = LastWords()
        local.sentinel = LastWords.Sentinel(words)
        said.append(words)
        spend()

    in_a_thread(work)
    deadline = time.monotonic() + 5
    while said[0].clocks is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert said[0].clocks.user_ns + said[0].clocks.system_ns >= 0.9 * SPENT_NS


def test_last_words_are_of_the_thread_itself_alone():
    words = []
    in_a_thread(lambda: words.append(LastWords()))
    words[0].say()
    assert words[0].clocks is None
    own = LastWords()
    own.say()
    assert own.clocks is not None


def test_how_long_a_thread_had_no_processor():
    first = own_delay_ns()
    if first is None:
        pytest.skip("this kernel does not count it")
    spend()
    assert own_delay_ns() >= first


def test_a_descriptor_that_became_the_hosts_is_left_open(tmp_path, monkeypatch):
    """Another thread closes all descriptors, and opens its own, while a file of ours is read."""
    read, own = os.read, []

    def meanwhile(number, length):
        text = read(number, length)
        os.close(number)
        own.append(os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT))
        assert own[-1] == number
        return text

    monkeypatch.setattr(os, "read", meanwhile)
    assert own_delay_ns() is None or own_delay_ns() >= 0
    monkeypatch.undo()
    assert own
    for number in own:
        os.close(number)  # raises where it is closed already
