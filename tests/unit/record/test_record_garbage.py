"""The watch of the garbage collector: what it notes, what it leaves alone, that it is no frame of Python."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import weakref

import pytest

from hftrace.record.garbage import Watch
from hftrace.schema import journal

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def callbacks():
    """What there is before is there afterwards."""
    before = list(gc.callbacks)
    threshold, enabled = gc.get_threshold(), gc.isenabled()
    yield before
    gc.set_threshold(*threshold)
    (gc.enable if enabled else gc.disable)()
    gc.unfreeze()
    assert gc.callbacks == before


@pytest.fixture
def watch():
    made = Watch()
    made.install()
    yield made
    made.remove()


def events(watch):
    """Returns ``(thread, collected, automatic, start, end)`` of each collection that was noted."""
    found = []
    for kind, thread, items in watch.drain():
        assert kind == journal.COLLECTIONS
        found += [(thread, *items[at : at + 4]) for at in range(0, len(items), 4)]
    return found


def cycles(count):
    for _ in range(count):
        items = []
        items.append(items)


def test_a_full_collection_is_noted_with_its_times_thread_and_objects(watch):
    gc.disable()
    while gc.collect():
        pass  # what tests before this one left: some of it goes only with the second collection
    watch.drain()
    before = time.monotonic_ns()
    cycles(5)
    gc.collect()
    after = time.monotonic_ns()
    ((thread, collected, automatic, start, end),) = events(watch)
    assert thread == threading.get_native_id()
    assert (collected, automatic) == (5, 0)
    assert before <= start < end <= after
    assert events(watch) == []


def test_collections_of_younger_objects_are_left_out(watch):
    gc.collect(0)
    gc.collect(1)
    assert events(watch) == []


def test_one_that_the_interpreter_began_is_told_from_a_call(watch):
    gc.collect()
    # What is frozen counts for nothing when the interpreter asks whether a full collection pays.
    gc.freeze()
    gc.collect()
    watch.drain()
    gc.enable()
    gc.set_threshold(100, 2, 2)
    kept = [[] for _ in range(20_000)]
    gc.set_threshold(0)
    automatic = events(watch)
    gc.collect()
    called = events(watch)
    assert kept
    if sys.version_info < (3, 14):  # from then on the interpreter collects a part at a time
        assert automatic
    assert all(event[2] == 1 for event in automatic)
    assert [event[2] for event in called] == [0]


def test_a_call_where_the_interpreter_does_not_collect_is_a_call(watch):
    gc.disable()
    kept = [[] for _ in range(20_000)]
    gc.collect()
    assert kept
    assert [event[2] for event in events(watch)] == [0]


def test_each_thread_has_its_own_collections(watch):
    threads = []

    def collect():
        threads.append(threading.get_native_id())
        gc.collect()

    worker = threading.Thread(target=collect)
    worker.start()
    worker.join()
    gc.collect()
    assert {event[0] for event in events(watch)} >= {*threads, threading.get_native_id()}


def test_two_watches_at_once(watch):
    other = Watch()
    other.install()
    gc.collect()
    other.remove()
    gc.collect()
    assert len(events(watch)) == 2
    assert len(events(other)) == 1


def test_one_that_was_under_way_is_no_half(watch):
    """A watch that is installed or removed in the middle of a collection has seen one end of it."""
    late = Watch()

    def install(phase, info):
        gc.callbacks.remove(install)
        late.install()

    gc.callbacks.append(install)
    try:
        gc.callbacks.insert(0, gc.callbacks.pop())
        gc.collect()  # begins, and installs it
        late.drain()
        late.remove()
        late.install()

        def stop(phase, info):
            if phase == "start":
                late.remove()

        gc.callbacks.insert(0, stop)
        gc.collect()
        gc.callbacks.remove(stop)
        late.install()
        gc.collect()
        late.remove()
    finally:
        assert install not in gc.callbacks
    assert len(events(late)) == 1
    assert len(events(watch)) >= 2


def test_an_end_without_a_start_is_nothing():
    late = Watch()
    late._callbacks[0]("stop", {})
    late._callbacks[1]("stop", {"generation": 2, "collected": 3, "uncollectable": 0})
    late._callbacks[0]("start", {})
    assert late.drain() == []
    late._callbacks[0]("stop", {})
    late._callbacks[1]("stop", {"generation": 2, "collected": 4, "uncollectable": 0})
    assert [event[1] for event in events(late)] == [4], "the start came with an earlier drain"


def test_others_keep_their_place_and_may_empty_the_list(callbacks):
    def theirs(phase, info):
        pass

    watch = Watch()
    gc.callbacks.append(theirs)
    watch.install()
    gc.callbacks.append(len)
    watch.remove()
    watch.remove()
    assert gc.callbacks == [*callbacks, theirs, len]
    watch.install()
    gc.callbacks.clear()
    watch.remove()
    gc.callbacks.extend(callbacks)


def test_nothing_of_a_watch_stays():
    watch = Watch()
    watch.install()
    gc.collect()
    gc.disable()
    references = [weakref.ref(watch), weakref.ref(watch._marks)]
    watch.remove()
    del watch
    assert [reference() for reference in references] == [None, None], "no cycle: gone at once"


def test_no_frame_of_python_is_entered(watch):
    calls = []

    def profile(frame, event, argument):
        if event == "call":
            calls.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name)

    gc.freeze()
    sys.setprofile(profile)
    try:
        gc.collect()
    finally:
        sys.setprofile(None)
    assert calls == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no timer here")
def test_an_interrupt_in_a_collection_reaches_the_host(watch):
    """With a function of Python in ``gc.callbacks`` the collector swallows what a signal handler raises."""

    class Interrupt(Exception):
        pass

    def handler(number, frame):
        raise Interrupt

    kept = [[] for _ in range(300_000)]
    before = signal.signal(signal.SIGALRM, handler)
    reached = 0
    try:
        for _ in range(5):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.002)
                gc.collect()
                time.sleep(1)
            except Interrupt:
                reached += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert kept
    assert reached == 5


def test_collections_between_two_times_are_found_before_and_after_they_are_drained(watch):
    start = time.monotonic_ns()
    gc.collect()
    middle = time.monotonic_ns()
    gc.collect()
    end = time.monotonic_ns()
    first = watch.between(start, middle)
    both = watch.between(start, end)
    assert (len(first), len(both)) == (1, 2)
    assert start <= both[0][0] <= both[0][1] <= middle <= both[1][0] <= both[1][1] <= end
    assert watch.drain()
    gc.collect(0)
    assert watch.between(start, end) == both
    assert watch.between(middle, start) == []
