"""Whose a download is: the program's own, or a load's; and when hook points of the Hub client record."""

from __future__ import annotations

import threading

import pytest

from hftrace.record.belongings import of_recorder
from hftrace.record.hooks.fetches import Fetches
from hftrace.record.hooks.points import HookPoint
from hftrace.record.hooks.wrappers import SpanObserver, observed_by
from hftrace.record.recorder import Recorder


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def fetches(recorder):
    return of_recorder(recorder, Fetches)


def elsewhere(function):
    """Returns what a function returns on a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_without_a_load_all_is_the_programs_own(fetches):
    assert fetches.is_own()


def test_what_a_load_fetches_is_the_loads(recorder, fetches):
    load = recorder.begin("load", "model")
    assert not fetches.is_own()
    recorder.end(load)
    assert fetches.is_own()


def test_another_thread_is_the_programs_own_where_no_loader_calls(recorder, fetches):
    load = recorder.begin("load", "model")
    assert elsewhere(fetches.is_own)
    library = {"__name__": "transformers.utils.hub", "ask": fetches.is_own}
    exec("def call():\n    return ask()", library)
    assert not elsewhere(library["call"])
    recorder.end(load)


def test_its_span_is_a_root_although_a_load_is_open(recorder, fetches):
    load = recorder.begin("load", "model")

    def fetch():
        span = fetches.begin("snapshot_download(me/m)", "me/m", 1, 5)
        inside = not fetches.is_own()
        parent = recorder.current() is span
        recorder.end(span)
        return inside, parent, recorder.current() is load

    assert elsewhere(fetch) == (True, True, True)
    recorder.end(load)


def test_a_thread_works_for_the_latest_call_of_its_repository(recorder, fetches):
    span = fetches.begin("snapshot_download(me/m)", "me/m", 1, 5)
    first, second = fetches.enter("me/m", span), fetches.enter("me/other", recorder.current())
    assert fetches.works_for("me/m") is span
    assert fetches.works_for("me/none") is None
    fetches.leave(first)
    assert fetches.works_for("me/m") is None
    fetches.leave(second)
    assert not fetches.running
    recorder.end(span)


def test_requests_count_while_something_is_fetched_and_the_recorder_records(recorder, fetches):
    def send():
        return recorder.current_id()

    point = HookPoint("module:send", "resolve")
    call = observed_by(SpanObserver, in_fetch=True)(recorder, point, 1, send, send)
    assert call() is None, "nothing is recorded outside of loads and fetches"
    span = fetches.begin("hf_hub_download(a)", "me/m", 1, 5)
    fetch = fetches.enter("me/m", span)
    assert call() not in (None, span.id)
    recorder.active = False  # as in a child by fork, which has a copy of all this
    assert call() == span.id
    recorder.active = True
    fetches.leave(fetch)
    assert call() == span.id
    recorder.end(span)
