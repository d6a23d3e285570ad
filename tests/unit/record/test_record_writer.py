"""The journal's writer: what interrupts it, on the same thread."""

from __future__ import annotations

import gc
import json
import signal
import threading
import time

import pytest

from hftrace.record import writer as record_journal
from hftrace.record.recorder import Recorder
from hftrace.record.writer import JournalWriter
from hftrace.schema import events


@pytest.fixture
def writer(tmp_path):
    made = JournalWriter(tmp_path / "journal.jsonl", list)
    yield made
    made.close()


def lines(writer):
    return [json.loads(line) for line in writer.path.read_text().splitlines()]


def run(action, seconds=20.0):
    """Calls ``action`` on a thread that a deadlock keeps, and not the tests."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "the writer waits for itself"


def test_a_finalizer_may_write_in_the_middle_of_a_write(writer, monkeypatch):
    """A collection begins at any allocation, and runs what the host has in ``__del__``."""
    encode = record_journal._encode

    class Garbage:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            writer.write(["from", "a finalizer"])

    def collecting(line):
        Garbage()
        gc.collect()
        return encode(line)

    def write():
        monkeypatch.setattr(record_journal, "_encode", collecting)
        writer.write_soon(["first", 1])
        writer.write(["second", 2])
        monkeypatch.setattr(record_journal, "_encode", encode)

    monkeypatch.setattr(Garbage, "__del__", _once(Garbage.__del__))
    run(write)
    assert sorted(line[0] for line in lines(writer)) == ["first", "from", "second"]
    assert writer.lost == 0


def _once(method):
    done = []

    def only(self):
        if not done:
            done.append(True)
            method(self)

    return only


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_a_signal_handler_may_write_too(writer):
    """Handlers run between two instructions of the main thread: ours as well as the host's."""
    handled = []

    def handler(*_):
        handled.append(len(handled))
        writer.write(["handler", len(handled)])

    # Where a handler waits for a lock that its own thread holds, nothing else would end the test.
    watchdog = threading.Timer(30, lambda: writer._writing.release())
    watchdog.start()
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    try:
        count = 0
        while len(handled) < 50 and count < 200_000:
            writer.write(["main", count])
            count += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        watchdog.cancel()
    found = lines(writer)
    assert len(handled) >= 50
    assert [line[1] for line in found if line[0] == "main"] == list(range(count))
    assert sum(line[0] == "handler" for line in found) == len(handled)


def until(condition, seconds=20.0):
    """Waits for what another thread does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def test_the_thread_sleeps_while_nothing_can_come(tmp_path, monkeypatch):
    monkeypatch.setattr(record_journal, "FLUSH_SECONDS", 0.01)
    calls, waiting, expected = [], [], [False]

    def drain():
        calls.append(1)
        return [waiting.pop()] if waiting else []

    writer = JournalWriter(tmp_path / "journal.jsonl", drain, lambda: expected[0])
    try:
        writer.start()
        until(lambda: writer._resting)
        before = len(calls)
        time.sleep(0.2)
        assert len(calls) == before, "no wake-up at all"
        # The end of a span is in the file soon, without another line.
        writer.write_soon(["end", 1])
        until(lambda: lines(writer) == [["end", 1]])
        until(lambda: writer._resting)
        # A load begins: from now on it looks by itself.
        expected[0] = True
        writer.wake()
        waiting.append(b'["text", 2]')
        until(lambda: lines(writer)[1:] == [["text", 2]])
        before = len(calls)
        until(lambda: len(calls) > before + 3)
        assert not writer._resting
        # Once nothing comes any more it sleeps again, and is woken to end.
        expected[0] = False
        until(lambda: writer._resting)
    finally:
        started = time.monotonic()
        writer.close()
    assert time.monotonic() - started < 4, "it did not wait for the thread in vain"
    assert not writer._thread.is_alive()


def test_waking_a_thread_twice_is_waking_it(writer):
    writer.start()
    writer._resting = True
    writer.wake()
    writer.wake()
    writer.write(["after", 1])
    assert lines(writer) == [["after", 1]]


def test_a_load_wakes_the_thread(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.start()
    try:
        until(lambda: recorder.writer._resting)
        span = recorder.begin("load", "a load")
        until(lambda: not recorder.writer._resting)
        recorder.local.buffer.places.extend(("a.weight", 1, 2))
        until(lambda: ["places", 1] in [[line[0], events.count(line)] for line in placed(recorder.writer)])
        recorder.end(span)
        until(lambda: any(line[0] == "end" for line in lines(recorder.writer)))
        until(lambda: recorder.writer._resting)
    finally:
        recorder.stop()


def placed(writer):
    return [line for line in lines(writer) if line[0] == "places"]


def test_the_child_of_a_fork_finds_no_lock_that_another_thread_held(writer):
    writer.write_soon(["of the parent"])
    with writer._writing, writer._draining:
        # As in the child: the thread that holds them is not there any more.
        held = threading.Thread(target=writer.abandon)
        held.start()
        held.join()
        run(lambda: writer.write(["of the child"]))
    assert writer._pending == []
