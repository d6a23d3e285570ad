"""Real sessions that did not go as planned: whose an exception is, children, threads, and no load at all."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
import small_llama

import hftrace
from hftrace.analysis.ending.death import death_of
from hftrace.analysis.findings.registry import findings
from hftrace.analysis.findings.silence import doubts
from hftrace.analysis.summary import summary
from hftrace.analysis.time.loads import load_traces
from hftrace.analysis.time.phases import attributed_share, loads_wall_ns, phase_times, recorded_wall_ns
from hftrace.analysis.time.session import own_ns, session_bounds
from hftrace.analysis.time.weights import weight_bytes
from hftrace.analysis.time.whose import failed_loads
from hftrace.render.views import load as view
from hftrace.render.views.options import ViewOptions
from hftrace.synth import plan, write

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


@pytest.fixture
def cut(tmp_path):
    """A checkpoint whose second shard is half of what it was."""
    small_llama.write(tmp_path)
    file = sorted(tmp_path.glob("*.safetensors"))[1]
    os.truncate(file, file.stat().st_size // 2)
    return tmp_path


def caught(path):
    with contextlib.suppress(Exception):
        load(path)


def shown(trace, name):
    blocks = view(name).draw(trace, ViewOptions())
    return "\n".join("".join(text for text, _ in line) for block in blocks for line in block.lines(100))


def test_what_a_caught_load_failed_for_is_no_reason_for_a_later_end(checkpoint, cut):
    def block():
        caught(cut)
        transformers.AutoConfig.from_pretrained(checkpoint)
        time.sleep(0.02)
        raise ValueError("unrelated")

    trace, _ = traced(block)
    assert trace.outcome["evidence"] == []
    found = death_of(trace)
    assert (found.file, found.shard, found.tensor) == (None, None, None)
    assert found.time_ns == session_bounds(trace).end_ns > trace.loads[-1].end_ns + 20_000_000
    assert "into the load" not in shown(trace, "postmortem")
    # Of that load it is the reason all the same.
    assert "cut off: it has" in shown(load_traces(trace)[0], "postmortem")
    assert [(finding.rule, finding.load) for finding in findings(trace)] == [("R47", trace.loads[0].span)]


def test_a_load_that_failed_for_another_reason_than_the_one_before_it(checkpoint, cut):
    def block():
        caught(cut)
        transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint, quantization_config={"quant_method": "no"}
        )

    trace, error = traced(block)
    assert error is not None
    assert trace.outcome["load"] == trace.loads[1].span
    assert trace.outcome["evidence"] == []


def test_memory_that_ran_out_after_a_load_says_nothing_of_finishing_one(checkpoint, cut):
    def block():
        caught(cut)
        raise MemoryError("for the cache")

    trace, _ = traced(block)
    assert trace.outcome["predicted_anon_bytes"] is None
    kinds = {each["kind"] for each in trace.outcome["evidence"]}
    assert "memory" in kinds
    assert not kinds & {"raised", "damaged-file"}


def test_the_only_load_failed_and_was_caught(tmp_path):
    trace, error = traced(lambda: caught(tmp_path / "nothing"))
    assert (error, trace.outcome["status"]) == (None, "ok")
    assert [(finding.rule, finding.load) for finding in findings(trace)] == [("R48", trace.loads[0].span)]
    text = shown(trace, "summary")
    assert "ok, but its load failed" in text.splitlines()[0]
    assert "returned" not in text
    assert "Load 1 of it failed: --load 1 shows why." in shown(trace, "postmortem")


def test_what_the_only_load_moved_is_known_whatever_ended_the_session(tmp_path):
    # Of less than 64 MB, growth of the process does not tell what was read from what was mapped.
    write(plan("llama-2-7b", size="80MB"), tmp_path / "large")

    def block():
        load(tmp_path / "large")
        raise KeyboardInterrupt

    trace, _ = traced(block)
    (own,) = load_traces(trace)
    assert own.outcome["status"] == "ok"
    assert not weight_bytes(own).unknown


def test_what_it_costs_to_describe_an_exception_is_not_the_callers(tmp_path, monkeypatch):
    def slow(error):
        time.sleep(0.01)
        return "no words"

    monkeypatch.setattr("hftrace.record.failures.says_at_once", lambda error: False)
    monkeypatch.setattr("hftrace.record.failures.words_of", slow)
    trace, _ = traced(lambda: [caught(tmp_path / "nothing"), caught(tmp_path / "nothing")])
    assert own_ns(trace) >= 20_000_000


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
        block = bytearray(b"x") * 200_000_000
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
