"""Real sessions that did not go as planned: whose an exception is, children, threads, and no load at all."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
import small_llama

import hftrace
from hftrace.analysis.findings.silence import doubts
from hftrace.analysis.summary import summary
from hftrace.analysis.time.phases import attributed_share, loads_wall_ns, phase_times, recorded_wall_ns
from hftrace.analysis.time.whose import failed_loads

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    place = tmp_path_factory.mktemp("sessions")
    small_llama.write(place)
    return place


def traced(action):
    """Returns the trace of a block, and what left it."""
    with_error = None
    recorded = hftrace.trace(None, sample_hz=0)
    try:
        with recorded:
            action()
    except BaseException as error:
        with_error = error
    return recorded.trace, with_error


def load(path):
    return transformers.AutoModelForCausalLM.from_pretrained(path)


def test_a_fallback_that_worked_is_a_session_that_went_well(checkpoint, tmp_path):
    def block():
        with pytest.raises(OSError, match="nothing"):
            load(tmp_path / "nothing")
        load(checkpoint)

    trace, error = traced(block)
    assert error is None
    assert trace.outcome["status"] == "ok"
    assert [(each.name, each.status) for each in failed_loads(trace)] == [("AutoModelForCausalLM", "error")]
    assert ".py:" in failed_loads(trace)[0].raised_at
    assert [load.status for load in trace.loads] == ["error", "ok"]


def test_an_exception_after_the_load_is_the_sessions(checkpoint):
    def block():
        load(checkpoint)
        raise MemoryError("for the cache")

    trace, error = traced(block)
    assert isinstance(error, MemoryError)
    assert (trace.outcome["status"], trace.outcome["load"]) == ("error", None)
    assert trace.outcome["error"]["type"] == "MemoryError"
    assert "in block" in trace.outcome["error"]["traceback"]
    assert [load.status for load in trace.loads] == ["ok"]


def test_a_load_that_failed_with_the_block_is_named(tmp_path):
    def block():
        try:
            load(tmp_path / "nothing")
        except OSError as error:
            raise RuntimeError("the service cannot start") from error

    trace, _ = traced(block)
    assert trace.outcome["load"] == trace.loads[0].id
    assert trace.outcome["error"]["type"] == "RuntimeError"


def test_sys_exit_after_a_load_is_no_error(checkpoint):
    def block():
        load(checkpoint)
        sys.exit("no work today")

    trace, error = traced(block)
    assert isinstance(error, SystemExit)
    assert (trace.outcome["status"], trace.outcome["exit_code"]) == ("ok", 1)
    assert trace.outcome["exit_message"] == "no work today"


@pytest.mark.parametrize("model", ["nobody/nothing", "/no/such/folder/at/all"])
@pytest.mark.parametrize("name", ["AutoModelForCausalLM", "AutoConfig", "AutoTokenizer", "BertModel"])
def test_all_of_a_load_that_fails_at_once_is_in_named_phases(name, model):
    def block():
        with pytest.raises((OSError, ValueError)):
            getattr(transformers, name).from_pretrained(model)

    traced(block)  # what it imports
    trace, _ = traced(block)
    assert attributed_share(trace) >= 0.99


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_loads_in_forked_children_are_said_to_be_missing(checkpoint):
    def block():
        load(checkpoint)
        process = multiprocessing.get_context("fork").Process(target=load, args=(checkpoint,))
        process.start()
        process.join(60)
        assert process.exitcode == 0

    trace, error = traced(block)
    assert error is None
    children = summary(trace)["children"]
    assert (children["count"], children["python"]) == (1, 1)
    assert children["kinds"] == [{"how": "fork", "name": "load", "count": 1}]
    assert "children" in [reason.kind for reason in doubts(trace)]
    assert {span.pid for span in trace.spans} == {os.getpid()}
    assert trace.header["lost"] == {"events": 0}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_is_forked_in_a_load_leaves_its_parents_figures_alone(checkpoint, monkeypatch):
    """It finishes the load by itself, and all that is open of ``/proc`` in it is the parent's."""
    from transformers import LlamaForCausalLM

    original = LlamaForCausalLM.__init__
    held = {}

    def forking(self, config):
        original(self, config)
        block = bytearray(b"x") * 60_000_000
        del block
        held["child"] = os.fork()
        if held["child"]:
            os.waitpid(held["child"], 0)

    monkeypatch.setattr(LlamaForCausalLM, "__init__", forking)

    def load_and_leave():
        LlamaForCausalLM.from_pretrained(checkpoint)
        if not held["child"]:
            os._exit(0)

    trace, error = traced(load_and_leave)
    assert error is None
    (root,) = trace.loads
    assert root.status == "ok"
    if root.rss_peak_bytes is not None and root.rss_anon_start_bytes is not None:
        assert root.rss_peak_bytes - root.rss_anon_start_bytes - root.rss_file_start_bytes > 50_000_000
    assert summary(trace)["children"]["count"] == 1


def test_a_session_without_a_load_says_what_it_did_instead():
    trace, _ = traced(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    assert [reason.kind for reason in doubts(trace)][:1] == ["no-load"]
    instead = summary(trace)["instead"]
    assert instead["wall_ns"] > 0
    assert instead["children"]["kinds"][0]["how"] == "program"


def test_loads_on_two_threads_take_no_longer_than_the_clock(checkpoint, globals_put_back):
    from transformers import LlamaForCausalLM

    class Slow(LlamaForCausalLM):
        def __init__(self, config):
            super().__init__(config)
            time.sleep(0.3)

    def block():
        threads = [threading.Thread(target=Slow.from_pretrained, args=(checkpoint,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    trace, _ = traced(block)
    spans = trace.loads
    wall = max(span.end_ns for span in spans) - min(span.start_ns for span in spans)
    assert loads_wall_ns(trace) == recorded_wall_ns(trace) <= wall
    assert sum(phase_times(trace).values()) == recorded_wall_ns(trace)
    assert summary(trace)["overlapping"] == [
        {"load": spans[0].id, "with": [spans[1].id]},
        {"load": spans[1].id, "with": [spans[0].id]},
    ]
