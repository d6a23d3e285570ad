"""The journal's writer: what interrupts it, on the same thread."""

from __future__ import annotations

import gc
import json
import signal
import threading

import pytest

from hftrace.record import writer as record_journal
from hftrace.record.writer import JournalWriter


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
