"""Threads that were in a load before the recording began."""

import threading

import pytest

from hftrace.record import buffers
from hftrace.record.earlier import Earlier
from hftrace.record.thread_state import ThreadState


class Loading:
    """A thread that is in a load, goes on when it is told to, and tells of itself."""

    def __init__(self):
        self.inside, self.go, self.out, self.after = (threading.Event() for _ in range(4))
        self.look = lambda: None
        self.seen = []
        self.thread = threading.Thread(target=self.run)

    def load(self):
        self.inside.set()
        assert self.go.wait(10)
        self.seen.append(self.look())

    def run(self):
        self.load()
        self.out.set()
        assert self.after.wait(10)
        self.seen.append(self.look())


@pytest.fixture
def loading():
    made = Loading()
    made.thread.start()
    assert made.inside.wait(10)
    yield made
    made.go.set()
    made.after.set()
    made.thread.join(10)


def test_a_thread_is_left_alone_until_its_load_has_returned(loading):
    earlier = Earlier()
    earlier.look(lambda: {Loading.load.__code__})
    assert set(earlier.codes) == {loading.thread.ident}
    assert earlier.threads == {loading.thread.native_id}
    registry = []
    state, local = ThreadState(earlier), buffers.ThreadBuffers(registry)

    def look():
        local.buffer.reads += ("x", 1, 2)
        was = state.busy
        return was, earlier.is_over(state, local.buffer), state.busy, len(local.buffer.reads)

    loading.look = look
    loading.go.set()
    assert loading.out.wait(10)
    assert buffers.drain(registry, earlier.threads) == []  # and what it had read is forgotten
    loading.after.set()
    loading.thread.join(10)
    # In its load it is busy; behind it nothing is left of it, and it is as any other thread.
    assert loading.seen == [(True, False, True, 3), (True, True, False, 0)]
    assert not earlier.codes
    assert not earlier.threads
    assert not state.busy  # that of this thread


def test_a_thread_in_no_load_is_as_any_other(loading):
    earlier = Earlier()
    earlier.look(lambda: {Loading.run.__qualname__, test_a_thread_in_no_load_is_as_any_other.__code__})
    assert not earlier.codes  # the own thread begins the recording itself
    assert not ThreadState(earlier).busy
